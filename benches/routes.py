"""Configurations with many routes: for each number, a path of its own, /n/r00000/ and so on, to the same backends."""

# HTTPRoute.spec.rules holds no more, by the Gateway API.
RULES = 16


def documents(count, gateway="web", backend="hello"):
    """HTTPRoutes for Millrace, as YAML documents."""
    parts = []
    for first in range(0, count, RULES):
        parts.append(f"---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: many-{first} }}\n"
                     f"spec:\n  parentRefs: [{{ name: {gateway} }}]\n  rules:\n")
        for number in range(first, min(first + RULES, count)):
            parts.append(f"    - matches: [{{ path: {{ type: PathPrefix, value: /n/r{number:05} }} }}]\n"
                         f"      backendRefs: [{{ group: millrace.dev, kind: Backend, name: {backend}, port: 8080 }}]\n")
    return "".join(parts)


def locations(count):
    """Locations for NGINX, as the one for everything in nginx-proxy.conf."""
    passed = ('proxy_pass http://hello; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; '
              "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; ")
    return "".join(f"        location /n/r{number:05}/ {{ {passed}}}\n" for number in range(count))
