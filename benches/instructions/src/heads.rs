//! The messages that are measured.

/// What `wrk` sends.
pub(crate) const WRK: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.9.1.1\r\n\r\n";

/// What a route can tell from others by a field.
pub(crate) const CANARY: &[u8] = b"GET /api/cart HTTP/1.1\r\nHost: 10.9.1.1\r\nX-User: 7\r\n\r\n";

/// What `wrk` sends, from somebody who will not ask again.
pub(crate) const WRK_CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: 10.9.1.1\r\nConnection: close\r\n\r\n";

/// A browser's request: fifteen fields.
pub(crate) const BROWSER: &[u8] = b"GET /products/shoes/running?size=42&colour=blue&page=3 HTTP/1.1\r\n\
Host: shop.example.com\r\n\
Connection: keep-alive\r\n\
Cache-Control: max-age=0\r\n\
sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
sec-ch-ua-mobile: ?0\r\n\
sec-ch-ua-platform: \"Linux\"\r\n\
Upgrade-Insecure-Requests: 1\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Sec-Fetch-Site: same-origin\r\n\
Sec-Fetch-Mode: navigate\r\n\
Referer: https://shop.example.com/products/shoes\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
Cookie: session=4f9a1c0de2b84b7e9d3a5c6f7e8091a2; theme=dark; cart=17; _ga=GA1.1.1234567890.1700000000\r\n\r\n";

/// What NGINX says of a small file, and the file.
pub(crate) const NGINX: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Date: Fri, 21 Nov 2025 22:54:00 GMT\r\n\
Content-Type: text/html\r\n\
Content-Length: 13\r\n\
Last-Modified: Fri, 21 Nov 2025 20:00:00 GMT\r\n\
Connection: keep-alive\r\n\
ETag: \"691fc3a0-d\"\r\n\
Accept-Ranges: bytes\r\n\r\n\
hello, world\n";

/// The head of a response that goes on for ever.
pub(crate) const ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: nginx/1.22.1\r\n\
Content-Type: application/octet-stream\r\n\
Content-Length: 1099511627776\r\n\r\n";
