//! What control does for each route and endpoint of a configuration: none of it on a core, but on a CPU that others need, too.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use control::Compiler;
use schema::Configuration;

use crate::collect_here;

const BASE: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports: [{ name: north, device: "net_af_packet0,iface=n", addresses: [10.9.0.1/16] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web }
spec: { gatewayClassName: millrace, listeners: [{ name: http, protocol: HTTP, port: 80 }] }
"#;

/// So many routes, each with a backend of its own that has so many endpoints.
fn text(routes: u64, endpoints: u64) -> String {
    let mut text = BASE.to_owned();
    for route in 0..routes {
        let listed: Vec<String> = (0..endpoints).map(|n| format!("{{ address: 10.9.1.{} }}", n % 250)).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: r{route} }}\nspec:\n  \
             parentRefs: [{{ name: web }}]\n  rules:\n    - matches: [{{ path: {{ type: PathPrefix, value: /r{route} }} }}]\n      \
             backendRefs: [{{ group: millrace.dev, kind: Backend, name: b{route}, port: {} }}]\n---\n\
             apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: b{route} }}\nspec: {{ endpoints: [{}] }}\n",
            1024 + route,
            listed.join(", ")
        );
    }
    text
}

fn configuration(routes: u64, endpoints: u64) -> Arc<Configuration> {
    match schema::load_str("text", &text(routes, endpoints)) {
        Ok(configuration) => Arc::new(configuration),
        Err(errors) => panic!("{errors}"),
    }
}

/// Reads and checks routes with a backend of one endpoint each, from their text.
pub(crate) fn read(n: u64) {
    let text = text(n, 1);
    collect_here(&mut || assert!(black_box(schema::load_str("text", black_box(&text))).is_ok()));
}

/// Compiles them once more, when nothing is new.
pub(crate) fn compile_routes(n: u64) {
    let configuration = configuration(n, 1);
    let mut compiler = Compiler::new(1);
    drop(compiler.compile(&configuration));
    collect_here(&mut || drop(black_box(compiler.compile(black_box(&configuration)))));
}

/// Compiles backends with ten endpoints each; `n` are endpoints.
pub(crate) fn compile_endpoints(n: u64) {
    let configuration = configuration(n / 10, 10);
    let mut compiler = Compiler::new(1);
    drop(compiler.compile(&configuration));
    collect_here(&mut || drop(black_box(compiler.compile(black_box(&configuration)))));
}
