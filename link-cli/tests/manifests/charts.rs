//! The charts hold what `link-cli install` and `link-cli link` print, for every set of values.

use crate::{
    helm::{CHARTS, Helm, by_key, chart, read, sets},
    support::{link_input, same_as_file},
};
use link_cli::{
    cli::VERSION,
    manifests::{
        link::{self, LinkInput},
        system,
        values::Values,
    },
    output::yaml,
};
use linkspan_core::api::labels::CREATED_BY;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The sets of values that both ways of installing are compared for.
fn cases() -> [(&'static str, Vec<&'static str>); 8] {
    [
        ("default", vec![]),
        ("ha", vec!["ha=true"]),
        ("node-port", vec!["gateway.serviceType=NodePort", "gateway.port=5143"]),
        ("minimal", vec!["gateway.replicas=1", "gateway.serviceType=ClusterIP"]),
        ("registry", vec!["registry=registry.example/a", "imageVersion=9.9.9", "imagePullPolicy=Always"]),
        (
            "logs",
            vec![
                "logFormat=json",
                "logLevel=debug",
                "gateway.serviceAnnotations.a/b=c",
                "controller.replicas=2",
                "exportNamespaces=team=a",
                "createNamespaces=kubernetes.io/metadata.name=shop",
            ],
        ),
        (
            "policies",
            vec!["networkPolicies.enabled=true", "podMonitor.enabled=true", "podMonitor.labels.a=b"],
        ),
        ("policies for nobody", vec!["networkPolicies.enabled=true", "networkPolicies.adminFrom=[]"]),
    ]
}

#[test]
fn the_charts_definitions_are_made_from_the_types() {
    for definition in system::definitions() {
        let name = definition["spec"]["names"]["plural"].as_str().unwrap();
        let path = chart("linkspan-crds").join("templates").join(format!("{name}.yaml"));
        let text = yaml(&definition);
        assert!(!text.contains("{{"), "{name} would be taken for a template");
        same_as_file(&path, &text);
    }
}

/// In the folder from which Helm installs only what is absent, and never removes anything.
#[test]
fn smis_definitions_are_made_from_the_types() {
    for definition in system::smi_definitions() {
        let name = definition["spec"]["names"]["plural"].as_str().unwrap();
        same_as_file(&chart("linkspan-crds").join("crds").join(format!("{name}.yaml")), &yaml(&definition));
    }
}

#[test]
fn the_charts_versions_are_this_tools() {
    for name in CHARTS {
        let chart = read(&chart(name).join("Chart.yaml"));
        assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(VERSION), &json!(VERSION)), "{name}");
    }
}

#[test]
fn templates_neither_ask_the_cluster_nor_run_values() {
    for name in CHARTS {
        for entry in std::fs::read_dir(chart(name).join("templates")).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            for word in ["lookup ", "tpl "] {
                assert!(
                    !text.contains(&format!("{{{{ {word}")) && !text.contains(&format!("( {word}")),
                    "{}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn helm_and_install_bring_the_same_objects() {
    let Some(helm) = Helm::find("helm_and_install_bring_the_same_objects") else { return };
    helm.lint("linkspan-crds", &[]);
    assert_eq!(helm.template("linkspan-crds", &[]).unwrap(), by_key(system::definitions()), "definitions");
    for (name, values) in cases() {
        let owned: Vec<String> = values.iter().map(|set| (*set).to_owned()).collect();
        let printed = by_key(system::parts("linkspan", &Values::from_layers(vec![], &owned).unwrap()));
        helm.lint("linkspan", &sets(&values));
        let charted = helm.template("linkspan", &sets(&values)).unwrap();
        assert_eq!(
            charted.keys().collect::<Vec<_>>(),
            printed.keys().collect::<Vec<_>>(),
            "{name}: not the same objects"
        );
        for (key, object) in &printed {
            assert_eq!(&charted[key], object, "{name}: {key}");
        }
    }
}

#[test]
fn helm_and_link_bring_the_same_objects() {
    let Some(helm) = Helm::find("helm_and_link_bring_the_same_objects") else { return };
    let mut bare = link_input();
    bare.excluded_annotations.clear();
    for input in [link_input(), bare] {
        let printed = by_key(link::objects(&input).into_iter().map(by_helm));
        let values = values_file(&input);
        let values = ["--values", values.to_str().unwrap()];
        helm.lint("linkspan-link", &values);
        assert_eq!(helm.template("linkspan-link", &values).unwrap(), printed);
        let without = [&values[..], &["--set", "kubeconfig="]].concat();
        let secretless = helm.template("linkspan-link", &without).unwrap();
        assert!(secretless.keys().all(|key| key.kind != "Secret") && secretless.len() + 1 == printed.len());
    }
}

/// The values that ask the chart for `input`.
fn values_file(input: &LinkInput) -> PathBuf {
    let values = json!({
        "name": input.name,
        "kubeconfig": link::kubeconfig(&input.name, &input.api),
        "caBundle": input.ca_bundle,
        "gateway": {
            "addresses": input.gateway_addresses,
            "port": input.gateway_port,
            "identity": "spiffe://0b6bd1a5.linkspan/ns/linkspan/sa/linkspan-gateway",
        },
        "excludedAnnotations": input.excluded_annotations,
    });
    let name = format!("link-values-{}-{}.yaml", std::process::id(), input.excluded_annotations.len());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, yaml(&values)).unwrap();
    path
}

/// `object` as the chart words it: it names another maker.
fn by_helm(mut object: Value) -> Value {
    if object["metadata"]["annotations"][CREATED_BY].is_string() {
        object["metadata"]["annotations"][CREATED_BY] = json!(format!("linkspan/helm {VERSION}"));
    }
    object
}

#[test]
fn helm_refuses_unknown_names_and_wrong_types() {
    let Some(helm) = Helm::find("helm_refuses_unknown_names_and_wrong_types") else { return };
    let takes = |name: &str, values: &[&str]| helm.template(name, values).is_ok();
    assert!(takes("linkspan", &["--set", "gateway.port=1"]));
    for wrong in [
        "gatway.port=1",
        "gateway.port=70000",
        "gateway.serviceType=Load",
        "gateway.replicas=0",
        "ha=perhaps",
        "networkPolicies.adminFrom[0].namespace=a",
        "podMonitor.interval=often",
        "podMonitor.enabled=1",
    ] {
        assert!(!takes("linkspan", &["--set", wrong]), "{wrong} is taken");
    }
    assert!(!takes("linkspan-link", &[]), "a link without a name is taken");
    let values = values_file(&link_input());
    for wrong in [
        "name=West",
        "gateway.addresses=null",
        "gateway.adress=a",
        "gateway.identity=west",
        "caBundle=none",
        "probe.failureThreshold=0",
        "selector.exported=true",
    ] {
        assert!(
            !takes("linkspan-link", &["-f", values.to_str().unwrap(), "--set", wrong]),
            "{wrong} is taken"
        );
    }
}
