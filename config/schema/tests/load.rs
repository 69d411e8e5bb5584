//! What is loaded from where, and what several documents have to say about each other.
#![forbid(unsafe_code)]

use schema::{load, load_sources, load_str};

const HELLO: &str = include_str!("../../examples/hello.yaml");

#[test]
fn there_has_to_be_one_appliance_and_every_name_once() {
    let brief_of = |files: &[(&str, &str)]| {
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
        load_sources(&files).expect_err("refused").to_string()
    };
    let missing = "there is no Appliance\n   = hint: a configuration has one resource of kind Appliance, with the host's cores and ports\n1 error";
    assert_eq!(brief_of(&[]), missing);
    assert_eq!(brief_of(&[("a.yaml", "# nothing\n---\n---\n")]), missing);
    assert_eq!(brief_of(&[("a.yaml", " \n\n")]), "a.yaml: is empty\n   = hint: is it truncated?\n1 error");
    let twice = brief_of(&[("a.yaml", HELLO), ("b.yaml", HELLO)]);
    let listed: Vec<&str> = twice.lines().filter(|line| line.starts_with("b.yaml")).collect();
    assert_eq!(
        listed,
        [
            "b.yaml:4:19: metadata.name: a second Appliance default/edge",
            "b.yaml:19:19: metadata.name: a second Gateway default/web",
            "b.yaml:23:15: spec.listeners[0]: a second listener for port 80 and all hostnames on the same address",
            "b.yaml:27:19: metadata.name: a second HTTPRoute default/hello",
            "b.yaml:36:19: metadata.name: a second Backend default/hello",
        ],
        "{twice}"
    );
    let other = HELLO.split("---").next().unwrap().replace("name: edge", "name: other");
    let two = brief_of(&[("a.yaml", HELLO), ("b.yaml", &other)]);
    assert!(two.starts_with("b.yaml:4:19: metadata.name: a second Appliance\n"), "{two}");
    assert!(two.ends_with("\n1 error"), "{two}");
}

#[test]
fn a_gateway_on_all_addresses_conflicts_with_one_on_some() {
    let other = "
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: other }
spec:
  gatewayClassName: millrace
  listeners: [{ name: http, protocol: HTTP, port: 80 }]
";
    for text in [
        format!("{HELLO}{other}"),
        format!("{other}{HELLO}").replacen("\n---\n", "", 1).replacen("# The", "---\n# The", 1),
    ] {
        let errors = load_str("x.yaml", &text).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors}");
        assert!(errors.to_string().contains("a second listener for port 80"), "{errors}");
        assert!(
            load_str(
                "x.yaml",
                &text.replace(
                    "protocol: HTTP, port: 80 }]\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute",
                    "protocol: HTTP, port: 81 }]\n---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute"
                )
            )
            .is_ok()
        );
    }
}

#[test]
fn what_cannot_be_judged_is_not_complained_about() {
    // The Gateway's document is broken, so nothing is known of what it defines.
    let text = HELLO.replace("metadata: { name: web }", "metadata: { name: web");
    assert_eq!(load_str("x.yaml", &text).unwrap_err().len(), 1);
    // The listener's name was left out, so that nobody knows which names there are.
    let text = HELLO
        .replace("listeners: [{ name: http", "listeners: [{ name: *http")
        .replace("parentRefs: [{ name: web", "parentRefs: [{ name: web, sectionName: http");
    assert_eq!(load_str("x.yaml", &text).unwrap_err().len(), 1);
    // A Backend with one wrong endpoint still is there to be referred to.
    let text = HELLO.replace("address: 10.9.2.2 ", "adress: 10.9.2.2 ");
    let errors = load_str("x.yaml", &text).unwrap_err();
    assert!(errors.iter().all(|e| e.field.starts_with("spec.endpoints[0]")), "{errors}");
}

#[test]
fn files_and_directories() {
    let directory = std::env::temp_dir().join(format!("millrace-schema-{}", std::process::id()));
    let inner = directory.join("inner.yaml");
    std::fs::create_dir_all(&inner).unwrap();
    let parts: Vec<&str> = HELLO.split("---\n").collect();
    for (name, text) in [
        ("1.yaml", parts[..3].join("---\n").as_str()),
        ("2.yml", parts[3]),
        (".hidden.yaml", "broken: ["),
        ("notes.txt", "broken: ["),
    ] {
        std::fs::write(directory.join(name), text).unwrap();
    }
    let whole = load(std::slice::from_ref(&directory));
    let part = load(&[directory.join("2.yml"), directory.join("none.yaml"), inner]);
    let twice = load(&[directory.clone(), directory.join("2.yml")]);
    std::fs::remove_dir_all(&directory).unwrap();

    let whole = whole.unwrap();
    assert_eq!(whole.backends[0].at.file.as_ref(), directory.join("2.yml").to_str().unwrap());
    let part = part.unwrap_err().to_string();
    assert!(part.contains("none.yaml: cannot be read: no such file or directory"), "{part}");
    assert!(part.contains("inner.yaml: has no configuration in it"), "{part}");
    assert!(twice.unwrap_err().to_string().contains("2.yml: is given twice"));
}

#[test]
fn a_reference_to_a_subset_names_the_port_that_its_endpoints_lack() {
    let subset = |labels: &str| {
        let endpoints =
            "{ address: 10.9.2.2, labels: { v: \"1\" } }, { address: 10.9.2.3, port: 8080, labels: { v: \"2\" } }";
        let (head, _) = HELLO.rsplit_once("metadata: { name: hello }").unwrap();
        let part = format!("spec: {{ subset: {{ of: hello, matchLabels: {{ v: \"{labels}\" }} }} }}\n");
        let text = format!(
            "{head}metadata: {{ name: hello }}\nspec: {{ endpoints: [{endpoints}] }}\n---\n\
             apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: part }}\n{part}"
        );
        text.replace("name: hello, port: 8080 }", "name: part }")
    };
    assert!(load_str("x.yaml", &subset("2")).is_ok());
    let errors = load_str("x.yaml", &subset("1")).unwrap_err();
    let problem = "is missing: endpoint 10.9.2.2 of default/part has no port of its own";
    assert!(errors.iter().all(|e| e.field.ends_with("backendRefs[0].port") && *e.problem == *problem), "{errors}");
    assert_eq!(errors.len(), 1);
}
