//! link-cli and two clusters that one command links both ways, with the real controllers and gateways as processes: a
//! watched table, and what `check` says of gateways that are not who they should be.

use anyhow::{Context, Result, ensure};
use linkspan_core::api::{
    credentials::{GATEWAY_TLS_SECRET, SERVER_CERT, SERVER_KEY},
    identity::{Identity, TrustDomain},
    labels::{GATEWAY, NAMESPACE},
};
use linkspan_tests::{
    Installation, Need, Program, eventually, have,
    netns::{Namespace, Network},
    program::Output,
    tls::Authority,
};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};

const COMMAND: Duration = Duration::from_secs(180);
/// Several times what a link needs to come to life, or to be seen dead, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

/// A kubeconfig with a context for each cluster, named as it.
fn both_contexts(east: &Installation, west: &Installation) -> Result<PathBuf> {
    let (mut clusters, mut users, mut contexts) = (vec![], vec![], vec![]);
    for side in [east, west] {
        let name = side.server.name();
        let own: Value = serde_norway::from_str(&side.server.admin_kubeconfig()?)?;
        clusters.push(json!({"name": name, "cluster": own["clusters"][0]["cluster"]}));
        users.push(json!({"name": name, "user": own["users"][0]["user"]}));
        contexts.push(json!({"name": name, "context": {"cluster": name, "user": name}}));
    }
    let all = json!({"apiVersion": "v1", "kind": "Config", "clusters": clusters, "users": users, "contexts": contexts});
    east.server.write_kubeconfig("both", &all.to_string())
}

struct Pair {
    east: Installation,
    west: Installation,
    kubeconfig: PathBuf,
}

impl Pair {
    fn link_cli(&self, line: &str) -> Result<Program> {
        let link_cli = Program::ours("link-cli")?.arg("--kubeconfig").arg(&self.kubeconfig);
        Ok(link_cli.args(line.split_whitespace()))
    }

    async fn ask(&self, line: &str) -> Result<Output> {
        self.link_cli(line)?.run(COMMAND).await
    }

    /// The link, from two contexts to a link that lives in both directions, as the README has it.
    async fn link(&self) -> Result<()> {
        let line = "--context west link --to east --cluster-name west --both --peer-name east";
        let dry = self.ask(&format!("{line} --dry-run")).await?;
        ensure!(dry.status.success() && dry.stderr.contains("east: Link west applied (dry run)"), "{dry:?}");
        let links = self.east.server.kubectl(["get", "links", "--all-namespaces", "-o", "name"])?;
        ensure!(links.run(COMMAND).await?.success()?.is_empty(), "a dry run changes nothing");
        let progress = [
            "west: gateway at ",
            "east: Link west applied",
            "east: link west is alive",
            "east: gateway at ",
            "west: Link east applied",
            "west: link east is alive",
        ];
        // The second run finds all as it should be.
        for _ in 0..2 {
            let linked = self.ask(&format!("{line} --wait")).await?;
            ensure!(linked.status.success() && linked.stdout.is_empty(), "{linked:?}");
            let mut rest = linked.stderr.as_str();
            for step in progress {
                let (_, after) =
                    rest.split_once(step).with_context(|| format!("no {step:?} in its place: {linked:?}"))?;
                rest = after;
            }
            ensure!(!linked.stderr.contains("token: "), "a secret is told: {linked:?}");
        }
        for (context, other) in [("east", "west"), ("west", "east")] {
            let row = format!("{other}     True           0  ");
            let look = async || {
                contains(&self.ask(&format!("--context {context} gateways")).await?.success()?, &[&row])
            };
            eventually(SOON, format_args!("{context} to show {other}"), look).await;
        }
        Ok(())
    }

    /// West's gateway is killed while somebody watches, and `gateways --watch` prints the table anew.
    async fn watch(&mut self) -> Result<()> {
        let mut watching = self.link_cli("--context east gateways --watch")?.start("watch")?;
        eventually(SOON, "the first table", async || contains(&watching.log(), &["west     True "])).await;
        for gateway in self.west.gateways() {
            gateway.kill()?;
        }
        let dead = async || {
            watching.running()?;
            let log = watching.log();
            let (before, after) = log.split_once("west     False ").context("still alive")?;
            ensure!(before.contains("west     True ") && before.matches("CLUSTER").count() >= 2, "{log}");
            ensure!(after.starts_with("         0            -  "), "{log}");
            Ok(())
        };
        eventually(SOON, "the second table", dead).await;
        watching.signal("INT")?;
        let ended = async || {
            let how = watching.running().err().context("it still runs")?.to_string();
            contains(&how, &["exit status: 130", "error: interrupted"])
        };
        eventually(SOON, "the watch to end by Ctrl-C", ended).await;
        Ok(())
    }

    /// West's gateways serve with a certificate for `identity` that a foreign CA signed.
    async fn serve_as(&self, identity: &Identity) -> Result<()> {
        let foreign = Authority::new("a foreign CA")?.gateway(&identity.to_string())?;
        self.serve(&json!({SERVER_CERT: foreign.certificate, SERVER_KEY: foreign.key})).await
    }

    async fn serve(&self, texts: &Value) -> Result<()> {
        let patch = json!({"stringData": texts}).to_string();
        let args = ["-n", NAMESPACE, "patch", "secret", GATEWAY_TLS_SECRET, "--type=merge", "-p", &patch];
        self.west.server.kubectl(args)?.run(COMMAND).await?.success()?;
        Ok(())
    }

    /// Waits until `check` in east says what is `wrong` on the way, and that all of `passed` is right.
    async fn fails(&self, what: &str, wrong: &[&str], passed: &[&str]) {
        let look = async || {
            let check = self.ask("--context east check --wait 0").await?;
            ensure!(check.status.code() == Some(1), "{check:?}");
            contains(&check.stdout, wrong)?;
            contains(&check.stdout, passed)?;
            ensure!(!check.stdout.contains("not exposed"), "{}", check.stdout);
            Ok(())
        };
        eventually(SOON, what, look).await;
    }

    /// A gateway with a certificate that this link does not trust is told apart from one that does not answer, and
    /// from the gateway of another cluster.
    async fn pretenders(&mut self, place: &Namespace) -> Result<()> {
        // Nobody puts the certificate right again.
        self.west.controller()?.kill()?;
        let uid = ["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"];
        let uid = self.west.server.kubectl(uid)?.run(COMMAND).await?.success()?;
        let gateway = |uid: &str| -> Result<Identity> {
            let (namespace, service_account) = (NAMESPACE.to_owned(), GATEWAY.to_owned());
            Ok(Identity { trust_domain: TrustDomain::of_cluster(uid)?, namespace, service_account })
        };
        let own = ["-n", NAMESPACE, "get", "secret", GATEWAY_TLS_SECRET, "-o", "json"];
        let own: Value =
            serde_json::from_str(&self.west.server.kubectl(own)?.run(COMMAND).await?.success()?)?;

        let exposed = "√ gateways of linked clusters are exposed (TCP)";
        self.serve_as(&gateway(&uid)?).await?;
        self.west.start_gateway(place).await?;
        let trust = [
            "× gateways of linked clusters are trusted (TLS)",
            "* west: tls-trust",
            "hint: trust mismatch: ",
        ];
        self.fails("another CA to be told", &trust, &[exposed]).await;
        let wide = self.ask("--context east gateways -o wide").await?.success()?;
        contains(&wide, &["False", "tls-trust"])?;

        self.serve_as(&gateway("00000000-0000-0000-0000-000000000000")?).await?;
        let other = [
            "× gateways of linked clusters are the expected ones (identity)",
            "* west: wrong-cluster",
            "hint: see that spec.gatewayAddress leads to the cluster that spec.gatewayIdentity names",
        ];
        self.fails("another cluster to be told", &other, &[exposed]).await;

        let back =
            json!({"data": {SERVER_CERT: own["data"][SERVER_CERT], SERVER_KEY: own["data"][SERVER_KEY]}})
                .to_string();
        let args = ["-n", NAMESPACE, "patch", "secret", GATEWAY_TLS_SECRET, "--type=merge", "-p", &back];
        self.west.server.kubectl(args)?.run(COMMAND).await?.success()?;
        let mended = async || {
            let check = self.ask("--context east check --wait 0").await?.success()?;
            contains(&check, &["√ gateways of linked clusters answer (round trip)"])
        };
        eventually(SOON, "the right gateway to be trusted again", mended).await;
        Ok(())
    }
}

#[tokio::test]
async fn one_command_links_both_ways_and_pretenders_are_told_apart() -> Result<()> {
    let tools = ["kube-controller-manager", "ip", "nsenter"].map(Need::Tool);
    if !have(&[Need::Root, Need::ApiServer]) || !have(&tools) {
        return Ok(());
    }
    let network = Network::new()?;
    let [east_controller, east_gateway, west_controller, west_gateway] =
        std::array::from_fn(|_| network.namespace().expect("a namespace on the network"));
    let host = network.host_address().into();
    let sides = [[&east_controller, &east_gateway], [&west_controller, &west_gateway]];
    let [east, west] = Installation::running_pair(host, sides[0], sides[1]).await?;
    let kubeconfig = both_contexts(&east, &west)?;
    let mut pair = Pair { east, west, kubeconfig };
    pair.link().await?;
    pair.watch().await?;
    pair.pretenders(&west_gateway).await
}
