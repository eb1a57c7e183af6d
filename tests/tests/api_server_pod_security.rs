//! What `install` runs passes the strictest of Kubernetes' Pod Security Standards, as the API server itself judges.

use anyhow::Result;
use linkspan_core::api::labels::{CONTROLLER, GATEWAY, NAMESPACE};
use linkspan_tests::{Installation, Need, have};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, time::Duration};

const COMMAND: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_installation_runs_in_a_namespace_that_enforces_restricted() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let localhost = Ipv4Addr::LOCALHOST;
    let cluster = Installation::new("restricted", localhost.into(), localhost).await.unwrap();
    let label = "jsonpath={.metadata.labels.pod-security\\.kubernetes\\.io/enforce}";
    let enforced = cluster.server.kubectl(["get", "namespace", NAMESPACE, "-o", label]).unwrap();
    assert_eq!(enforced.run(COMMAND).await.unwrap().success().unwrap(), "restricted");
    for name in [GATEWAY, CONTROLLER] {
        let pod = pod_of(&cluster, name).await.unwrap();
        create(&cluster, &pod).await.unwrap_or_else(|refused| panic!("{name}: {refused:#}"));
        for (path, wrong) in [
            ("/spec/securityContext/runAsNonRoot", json!(false)),
            ("/spec/securityContext/seccompProfile/type", json!("Unconfined")),
            ("/spec/containers/0/securityContext/allowPrivilegeEscalation", json!(true)),
            ("/spec/containers/0/securityContext/capabilities/drop", json!([])),
        ] {
            let mut loose = pod.clone();
            *loose.pointer_mut(path).unwrap_or_else(|| panic!("{name} does not say {path}")) = wrong;
            let refused = create(&cluster, &loose).await.unwrap_err().to_string();
            assert!(refused.contains("violates PodSecurity \"restricted"), "{path}: {refused}");
        }
        // Two more that the standard does not ask for.
        let container = &pod["spec"]["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert!(container["resources"]["requests"]["cpu"].is_string(), "{container}");
    }
}

/// The pod that Deployment `name` would make.
async fn pod_of(cluster: &Installation, name: &str) -> Result<Value> {
    let get = ["-n", NAMESPACE, "get", "deployment", name, "-o", "json"];
    let deployment: Value =
        serde_json::from_str(&cluster.server.kubectl(get)?.run(COMMAND).await?.success()?)?;
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!(name);
    pod["metadata"]["namespace"] = json!(NAMESPACE);
    Ok(pod)
}

/// Asks the API server whether it would take `pod`.
async fn create(cluster: &Installation, pod: &Value) -> Result<()> {
    let create = cluster.server.kubectl(["create", "--dry-run=server", "-f", "-"])?;
    create.stdin(pod.to_string()).run(COMMAND).await?.success()?;
    Ok(())
}
