"""A route with everything that a request may have to pass, beside a plain one: both serve the same requests alike."""

# What blast is told to ask for: below the route's prefix, with the field that it matches.
ASKED = "--path /x/n/ --field X-User:7"

# More than any wire here carries, so that every request is counted and none refused.
NO_LIMIT = 100_000_000

DOCUMENTS = """---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: filtered }}
spec:
  parentRefs: [{{ name: web }}]
  rules:
    - matches: [{{ path: {{ type: PathPrefix, value: /x }}, headers: [{{ name: X-User, value: "7" }}] }}]
      filters:
        - {{ type: URLRewrite, urlRewrite: {{ path: {{ type: ReplacePrefixMatch, replacePrefixMatch: / }} }} }}
      backendRefs: [{{ group: millrace.dev, kind: Backend, name: {backend}, port: 8080 }}]
---
apiVersion: millrace.dev/v1alpha1
kind: BackendPolicy
metadata: {{ name: least-request }}
spec:
  targetRefs: [{{ group: millrace.dev, kind: Backend, name: {backend} }}]
  loadBalancer: {{ type: LeastRequest }}
---
apiVersion: millrace.dev/v1alpha1
kind: RoutePolicy
metadata: {{ name: per-client }}
spec:
  targetRefs: [{{ group: gateway.networking.k8s.io, kind: HTTPRoute, name: filtered }}]
  rateLimit:
    rules:
      - {{ name: per-client, by: {{ type: SourceIP }}, limit: {{ requests: {limit}, unit: Second }} }}
"""


def documents(backend):
    """A header match, a rewrite, least-request and one limit, for Millrace, as YAML documents."""
    return DOCUMENTS.format(backend=backend, limit=NO_LIMIT)
