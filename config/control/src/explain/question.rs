//! What is asked: a request as a client would send it.

use std::net::IpAddr;

use axum::http::Uri;

/// A request that might be sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// Its method.
    pub method: String,
    /// `http://host:port/path?query`; port 80 where none is given.
    pub url: String,
    /// Header fields; a Host among them counts instead of the URL's.
    pub headers: Vec<(String, String)>,
    /// Who sends it; `None` where that does not matter.
    pub client: Option<IpAddr>,
    /// The address that it is sent to; `None` for the first that listens on the port.
    pub address: Option<IpAddr>,
    /// The core that it comes to; `None` for any of them.
    pub core: Option<u16>,
}

/// A question in its parts.
pub(super) struct Asked {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) path: String,
    pub(super) query: Option<String>,
    /// With Host.
    pub(super) fields: Vec<(String, String)>,
    pub(super) address: Option<IpAddr>,
}

impl Question {
    /// Reads the pairs of a query string: `method`, `url`, `header` (`name: value`, any number of times), `client`, `address`, `core`.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn from_query(query: &str) -> Result<Self, String> {
        let mut question = Self { method: "GET".to_owned(), ..Self::default() };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let address = || value.parse().map_err(|_| format!("{value} is not an IP address"));
            match &*name {
                "method" => question.method = value.into_owned(),
                "url" => question.url = value.into_owned(),
                "header" => {
                    let (name, value) = value.split_once(':').ok_or_else(|| format!("header {value} has no colon"))?;
                    question.headers.push((name.trim().to_owned(), value.trim().to_owned()));
                }
                "client" => question.client = Some(address()?),
                "address" => question.address = Some(address()?),
                "core" => {
                    question.core = Some(value.parse().map_err(|_| format!("{value} is not a core's number"))?);
                }
                other => return Err(format!("unknown parameter {other}: method, url, header, client, address, core")),
            }
        }
        Ok(question)
    }

    /// The other way around.
    #[must_use]
    pub fn to_query(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("method", &self.method).append_pair("url", &self.url);
        for (name, value) in &self.headers {
            query.append_pair("header", &format!("{name}: {value}"));
        }
        for (name, address) in [("client", self.client), ("address", self.address)] {
            if let Some(address) = address {
                query.append_pair(name, &address.to_string());
            }
        }
        if let Some(core) = self.core {
            query.append_pair("core", &core.to_string());
        }
        query.finish()
    }

    pub(super) fn parse(&self) -> Result<Asked, String> {
        if self.method.is_empty() || !self.method.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(format!("{:?} is not a method", self.method));
        }
        let bad = |what: &str| format!("{:?} {what}: http://shop.example/cart, say", self.url);
        let uri: Uri = self.url.parse().map_err(|_| bad("is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some(other) => return Err(bad(&format!("has the scheme {other}, and only http is served"))),
            None => return Err(bad("has no scheme")),
        }
        let url_host = uri.host().ok_or_else(|| bad("has no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let authority = if port == 80 { url_host.to_owned() } else { format!("{url_host}:{port}") };
        let mut fields = self.headers.clone();
        let host_field = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, v)| v.clone());
        let host = host_field.clone().unwrap_or_else(|| url_host.to_owned());
        if host_field.is_none() {
            fields.insert(0, ("Host".to_owned(), authority));
        }
        // A port in the Host field does not count in routing; an IPv6 address keeps its brackets.
        let host = match host.rsplit_once(':') {
            Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
            _ => host,
        };
        let address = self.address.or_else(|| url_host.trim_matches(['[', ']']).parse().ok());
        let path = if uri.path().is_empty() { "/" } else { uri.path() };
        Ok(Asked { host, port, path: path.to_owned(), query: uri.query().map(str::to_owned), fields, address })
    }
}
