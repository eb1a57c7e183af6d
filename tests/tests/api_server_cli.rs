//! link-cli against a real Kubernetes API on which nothing of Linkspan runs: installing, upgrading, uninstalling, and
//! what it says where rights or objects are missing.

use anyhow::{Context, Result, ensure};
use linkspan_core::api::labels::{CONTROLLER, NAMESPACE, SPLIT};
use linkspan_tests::{
    ApiServer, Installation, Need, Options, Program, api_server::CONTROLLERS, have, program::Output,
};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, path::PathBuf, time::Duration};
use tokio::time::Instant;

const COMMAND: Duration = Duration::from_secs(120);
const NEEDS: [Need; 2] = [Need::ApiServer, Need::Tool("kube-controller-manager")];

/// A server, and how link-cli signs in to it.
struct Cluster {
    server: ApiServer,
    kubeconfig: PathBuf,
}

impl Cluster {
    async fn start(name: &str) -> Result<Self> {
        let options = Options { controllers: CONTROLLERS, address: Ipv4Addr::LOCALHOST.into() };
        let server = ApiServer::start_with(name, options).await?;
        let kubeconfig = server.write_kubeconfig("user", &server.admin_kubeconfig()?)?;
        Ok(Self { server, kubeconfig })
    }

    async fn ask(&self, line: &str) -> Result<Output> {
        let link_cli = Program::ours("link-cli")?.arg("--kubeconfig").arg(&self.kubeconfig);
        link_cli.args(line.split_whitespace()).run(COMMAND).await
    }

    /// What it prints, and that it ends well.
    async fn well(&self, line: &str) -> Result<String> {
        self.ask(line).await?.success()
    }

    /// The sentence by which it refuses.
    async fn refused(&self, line: &str) -> Result<String> {
        let output = self.ask(line).await?;
        let told = output.stderr.clone();
        ensure!(output.status.code() == Some(1) && output.stdout.is_empty(), "{line}: {output:?}");
        ensure!(told.contains("error: ") && !told.contains("panicked"), "{line}: {told}");
        Ok(told)
    }

    async fn kubectl(&self, line: &str) -> Result<String> {
        self.server.kubectl(line.split(' '))?.run(COMMAND).await?.success()
    }

    /// What is printed is applied as a user does, definitions first.
    async fn install(&self, flags: &str) -> Result<()> {
        self.server.apply(&self.well(&format!("install --crds {flags}")).await?).await?;
        self.server.definitions_served().await?;
        self.server.apply(&self.well(&format!("install --skip-crds {flags}")).await?).await
    }

    async fn replicas(&self, deployment: &str) -> Result<String> {
        let get = format!("-n {NAMESPACE} get deployment {deployment} -o jsonpath={{.spec.replicas}}");
        self.kubectl(&get).await
    }
}

fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn an_installation_is_made_upgraded_and_removed() -> Result<()> {
    if !have(&NEEDS) {
        return Ok(());
    }
    let cluster = Cluster::start("cli").await?;

    // Nothing is installed yet.
    contains(
        &cluster.well("check --pre").await?,
        &["√ can create namespaces", "Status check results are √"],
    )?;
    let check = cluster.ask("check").await?;
    ensure!(check.status.code() == Some(1));
    contains(
        &check.stdout,
        &["× Link CRD exists", "hint: install by running `link-cli --context test install"],
    )?;
    contains(
        &cluster.refused("upgrade").await?,
        &["not installed in namespace linkspan", "link-cli install"],
    )?;
    contains(&cluster.refused("link --cluster-name west").await?, &["not installed", "install | kubectl"])?;
    let nothing = cluster.ask("uninstall --yes").await?;
    ensure!(nothing.status.success() && nothing.stderr.contains("nothing to uninstall"), "{nothing:?}");
    ensure!(cluster.ask("gateways").await?.stderr.contains("no cluster is linked"));

    // Installed with a value of its own, which an upgrade keeps.
    cluster.install("--set gateway.replicas=4").await?;
    ensure!(cluster.replicas("linkspan-gateway").await? == "4");
    let again = cluster.ask("install").await?;
    contains(&again.stderr, &["installed in context test already", "`link-cli upgrade` keeps its values"])?;
    let upgrade = cluster.well("upgrade --skip-crds").await?;
    cluster.server.apply(&upgrade).await?;
    ensure!(cluster.replicas("linkspan-gateway").await? == "4", "the value is kept");
    ensure!(upgrade == cluster.well("upgrade --skip-crds").await?, "the same is printed again");
    cluster.server.apply(&cluster.well("upgrade --skip-crds --ha").await?).await?;
    ensure!(cluster.replicas(CONTROLLER).await? == "2");
    let back = cluster.ask("upgrade --skip-crds --reset-values").await?;
    contains(
        &back.stderr,
        &["no longer part of the installation", "delete poddisruptionbudget linkspan-gateway"],
    )?;

    // What cannot be done is refused with advice.
    contains(
        &cluster.refused("install -L tools").await?,
        &["installed in namespace linkspan", "-L linkspan"],
    )?;
    cluster
        .kubectl(&format!("-n {NAMESPACE} annotate deployment {CONTROLLER} meta.helm.sh/release-name=ls"))
        .await?;
    contains(&cluster.refused("upgrade").await?, &["helm upgrade ls"])?;
    contains(&cluster.refused("install").await?, &["helm upgrade ls"])?;
    cluster
        .kubectl(&format!("-n {NAMESPACE} annotate deployment {CONTROLLER} meta.helm.sh/release-name-"))
        .await?;

    // A right that was taken away is found.
    let role = r#"[{"op":"remove","path":"/rules/0"}]"#;
    let patch = ["patch", "clusterrole", CONTROLLER, "--type=json", "-p", role];
    cluster.server.kubectl(patch)?.run(COMMAND).await?.success()?;
    let check = cluster.ask("check --wait 0").await?.stdout;
    contains(
        &check,
        &[
            "× gateway and controller have the rights they need",
            "ClusterRole linkspan-mirror-controller lacks: ",
        ],
    )?;

    links_and_splits_are_in_the_way_of_uninstalling(&cluster).await?;
    let gone = cluster.ask("uninstall --yes").await?;
    ensure!(gone.status.success() && gone.stderr.contains("nothing to uninstall"), "a second run: {gone:?}");
    let left = "get namespaces,clusterroles,clusterrolebindings,customresourcedefinitions -o name";
    let left = cluster.kubectl(left).await?;
    ensure!(!left.contains("linkspan"), "{left}");
    Ok(())
}

async fn links_and_splits_are_in_the_way_of_uninstalling(cluster: &Cluster) -> Result<()> {
    let link = json!({
        "apiVersion": "multicluster.linkerd.io/v1alpha3", "kind": "Link",
        "metadata": {"name": "west", "namespace": NAMESPACE}, "spec": {},
    });
    cluster.server.apply(&link.to_string()).await?;
    contains(&cluster.refused("uninstall").await?, &["unlink the following clusters", "* west", "--force"])?;
    let printed = cluster.well("unlink --cluster-name west").await?;
    contains(&printed, &["kind: Link", "name: west"])?;
    cluster.well("unlink --cluster-name west --yes").await?;
    let again = cluster.ask("unlink --cluster-name west --yes").await?;
    ensure!(again.status.success() && again.stderr.contains("nothing to unlink"), "{again:?}");

    // The user's Service, as a split leaves it, and a pod that is its own.
    let selector = json!({"app": "my-api", SPLIT: "true"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "my-api", "namespace": "default", "labels": {SPLIT: "true", "app": "my-api"}},
        "spec": {"selector": selector, "ports": [{"port": 80}]},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "my-api", "namespace": "default", "labels": {"app": "my-api"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "x"}]},
    });
    // Kubernetes gives a Service only pods on nodes that it knows.
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}});
    cluster
        .server
        .apply(&json!({"apiVersion": "v1", "kind": "List", "items": [node, service, pod]}).to_string())
        .await?;
    let status = json!({"status": {"phase": "Running", "podIP": "10.1.2.3", "podIPs": [{"ip": "10.1.2.3"}],
        "conditions": [{"type": "Ready", "status": "True"}]}})
    .to_string();
    let patch = ["patch", "pod", "my-api", "--subresource=status", "--type=merge", "-p", &status];
    cluster.server.kubectl(patch)?.run(COMMAND).await?.success()?;

    contains(&cluster.refused("uninstall").await?, &["end the traffic splits", "* default/my-api", "--yes"])?;
    let done = cluster.ask("uninstall --yes").await?;
    ensure!(done.status.success(), "{done:?}");
    contains(&done.stderr, &["Service my-api in namespace default has its own selector again"])?;
    let order = |word: &str| done.stderr.find(word).with_context(|| format!("no {word} in {}", done.stderr));
    ensure!(order("Deployment linkspan-mirror-controller")? < order("own selector")?, "{}", done.stderr);
    ensure!(order("own selector")? < order("Deployment linkspan-gateway")?, "{}", done.stderr);
    let found: Value = serde_json::from_str(&cluster.kubectl("get service my-api -o json").await?)?;
    ensure!(found["spec"]["selector"] == json!({"app": "my-api"}), "{found}");
    ensure!(found["metadata"]["labels"] == json!({"app": "my-api"}), "{found}");
    let slices = "get endpointslices -l kubernetes.io/service-name=my-api -o jsonpath={.items[*].endpoints[*].addresses}";
    contains(&cluster.kubectl(slices).await?, &["10.1.2.3"])?;
    cluster.kubectl("delete pod my-api --grace-period=0 --force").await?;
    Ok(())
}

#[tokio::test]
async fn a_check_ends_in_time_however_the_api_server_answers() -> Result<()> {
    if !have(&NEEDS) {
        return Ok(());
    }
    let cluster = Cluster::start("slow").await?;
    cluster.install("").await?;
    let faults = cluster.server.faults();
    let check = async |words: &[&str]| {
        let begun = Instant::now();
        let check = cluster.ask("--request-timeout 3s check --wait 0").await?;
        let took = begun.elapsed();
        println!("FIGURE: check of a cluster that does not answer: {:.1} s (bar 6 s)", took.as_secs_f64());
        ensure!(took < Duration::from_secs(30) && check.status.code() == Some(1), "{took:?}: {check:?}");
        contains(&check.stdout, words)
    };

    // It tells its version, and is too busy for everything else: the client asks again and again.
    for path in ["/api/", "/apis/"] {
        faults.fail("GET", path, 503, u32::MAX);
    }
    check(&["√ can query the Kubernetes API", "× Link CRD exists", "the API server did not answer in time"])
        .await?;
    faults.stop_failing();

    faults.bytes().pause();
    check(&["× can query the Kubernetes API", "does not answer"]).await?;
    faults.bytes().resume();
    Ok(())
}

#[tokio::test]
async fn without_rights_each_command_says_what_is_missing() -> Result<()> {
    if !have(&NEEDS) {
        return Ok(());
    }
    let west = Installation::new("few", Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(10, 213, 255, 1)).await?;
    let kubeconfig = west.server.write_kubeconfig("user", &west.server.admin_kubeconfig()?)?;
    let cluster = Cluster { server: west.server, kubeconfig };

    // Nobody at all.
    for command in [
        "install",
        "upgrade",
        "uninstall",
        "unlink --cluster-name west",
        "link --cluster-name west",
        "allow list",
        "allow --service-account-name a",
        "export my-api",
        "gateways",
        "services",
        "diagnostics endpoints my-api",
        "diagnostics proxy-metrics",
    ] {
        let told = cluster.refused(&format!("--as nobody {command}")).await?;
        contains(&told, &["not allowed for the user of context test", "ask for this right"])?;
        ensure!(told.trim_end().lines().count() == 1, "{command}: {told}");
    }
    let check = cluster.ask("--as nobody check --wait 0").await?;
    ensure!(check.status.code() == Some(1) && check.stdout.contains("ask for the right"), "{check:?}");
    let group = cluster.ask("--as nobody --as-group system:masters gateways").await?;
    ensure!(group.status.success(), "a group's rights are taken along: {group:?}");

    // Only Links: what their status says is shown.
    let link = json!({
        "apiVersion": "multicluster.linkerd.io/v1alpha3", "kind": "Link",
        "metadata": {"name": "west", "namespace": NAMESPACE}, "spec": {},
    });
    cluster.server.apply(&link.to_string()).await?;
    let conditions = json!([{"type": "GatewayAlive", "status": "True", "reason": "Alive", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let status = json!({"status": {"conditions": conditions, "latencyMs": 0.4, "services": {"mirrored": 3, "failing": 0}}}).to_string();
    let patch =
        ["-n", NAMESPACE, "patch", "link", "west", "--subresource=status", "--type=merge", "-p", &status];
    cluster.server.kubectl(patch)?.run(COMMAND).await?.success()?;
    cluster
        .kubectl(&format!(
            "-n {NAMESPACE} create role viewer --verb=get,list --resource=links.multicluster.linkerd.io"
        ))
        .await?;
    cluster.kubectl(&format!("-n {NAMESPACE} create rolebinding viewer --role=viewer --user=viewer")).await?;
    let table = cluster.well("--as viewer gateways").await?;
    ensure!(
        table == "CLUSTER  ALIVE    NUM_SVC      LATENCY  \nwest     True           3          1ms  \n",
        "{table:?}"
    );
    // Who may ask, and finds nobody who leads, is not told that it lives.
    let table = cluster.well("gateways --wait 0").await?;
    contains(&table, &["west     False"])?;

    services_are_exported_with_a_check(&cluster).await
}

async fn services_are_exported_with_a_check(cluster: &Cluster) -> Result<()> {
    contains(&cluster.refused("export my-api").await?, &["no Service my-api in namespace default"])?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "my-api", "namespace": "default"},
        "spec": {"ports": [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    });
    cluster.server.apply(&service.to_string()).await?;
    contains(
        &cluster.refused("export my-api --ports grpc").await?,
        &["no TCP port \"grpc\"", "8080 (http)"],
    )?;
    let get = "get service my-api -o json";
    let before = cluster.kubectl(get).await?;
    cluster.well("export my-api --ports http --dry-run").await?;
    ensure!(before == cluster.kubectl(get).await?, "a dry run changes nothing");
    let exported = cluster.ask("export my-api --ports http --wait 0").await?;
    ensure!(exported.status.success(), "{exported:?}");
    contains(&exported.stdout, &["Port 8080 of default/my-api", "my-api-west.default.svc.cluster.local"])?;
    contains(&exported.stderr, &["no endpoint is ready"])?;
    let found: Value = serde_json::from_str(&cluster.kubectl(get).await?)?;
    ensure!(found["metadata"]["labels"]["mirror.linkerd.io/exported"] == "true", "{found}");
    ensure!(found["metadata"]["annotations"]["linkspan.dev/export-ports"] == "http", "{found}");
    let version = found["metadata"]["resourceVersion"].clone();
    let again = cluster.ask("export my-api --ports http --wait 0").await?;
    ensure!(again.stderr.contains("is exported already"), "{again:?}");
    let found: Value = serde_json::from_str(&cluster.kubectl(get).await?)?;
    ensure!(found["metadata"]["resourceVersion"] == version, "a second run changes nothing");
    // No controller runs: that nobody publishes it is told.
    contains(&cluster.refused("export my-api --wait 1s").await?, &["labelled", "not published it yet"])?;
    let undone = cluster.well("unexport my-api").await?;
    contains(&undone, &["not seen by linked clusters any more"])?;
    ensure!(cluster.ask("unexport my-api").await?.stderr.contains("is not exported"));

    // Where only some namespaces may export, that is asked beforehand.
    let gated = cluster.well("upgrade --skip-crds --set exportNamespaces=team=a").await?;
    cluster.server.apply(&gated).await?;
    let withheld = cluster.refused("export my-api --wait 0").await?;
    contains(
        &withheld,
        &[
            "default/my-api cannot be exported",
            "exportNamespaces (team=a) does not select namespace default",
            "label",
        ],
    )?;
    let found: Value = serde_json::from_str(&cluster.kubectl(get).await?)?;
    ensure!(found["metadata"]["labels"] == Value::Null, "nothing is half done: {found}");
    cluster.kubectl("label namespace default team=a").await?;
    cluster.well("export my-api --wait 0").await?;
    Ok(())
}
