//! link-cli and two linked clusters, with the real controllers and gateways as processes: what it tells of links, and
//! where they break. The API servers reach the admin pages as they reach those of pods.

use anyhow::{Context, Result, ensure};
use linkspan_core::api::labels::{EXPORTED, GATEWAY, NAMESPACE};
use linkspan_tests::{
    Installation, Need, Program, eventually, have, installation::slice, netns::Network, program::Output,
    scratch::Scratch,
};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, time::Duration};

const COMMAND: Duration = Duration::from_secs(120);
/// Several times what a link needs to come to life, or to be seen dead, on a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// How a command line ends in a cluster.
async fn ask(cluster: &Installation, line: &str) -> Result<Output> {
    cluster.ask(line.split_whitespace()).await
}

/// What it prints, and that it ends well.
async fn well(cluster: &Installation, line: &str) -> Result<String> {
    ask(cluster, line).await?.success()
}

fn contains(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

/// Waits until a command ends well and prints all of `words`. What a controller or a gateway does after a change comes
/// in its own time, and on a machine that does much else a probe of a living link may miss its second.
async fn tells(cluster: &Installation, line: &str, words: &[&str]) {
    let look = async || contains(&well(cluster, line).await?, words);
    eventually(SOON, format_args!("`{line}` to tell {words:?}"), look).await;
}

#[tokio::test]
async fn what_links_do_is_told_and_where_they_break() -> Result<()> {
    let tools = ["kube-controller-manager", "ip", "nsenter", "tar", "script"].map(Need::Tool);
    if !have(&[Need::Root, Need::ApiServer]) || !have(&tools) {
        return Ok(());
    }
    let network = Network::new()?;
    let [east_controller, east_gateway, west_controller, west_gateway, second_gateway] =
        std::array::from_fn(|_| network.namespace().expect("a namespace on the network"));
    let host = network.host_address().into();
    let sides = [[&east_controller, &east_gateway], [&west_controller, &west_gateway]];
    let [mut east, mut west] = Installation::running_pair(host, sides[0], sides[1]).await?;
    well(&west, "check --wait 90s").await?;
    link_with_warning_on_a_terminal(&west).await?;
    west.link_into(&east).await?;

    well(&east, "check --wait 90s").await?;
    tells(
        &east,
        "check",
        &[
            "√ a mirror controller leads",
            "√ gateway and controller have the rights they need",
            "√ CA bundle is published and in its time",
            "√ remote cluster access credentials are valid",
            "√ client certificates are in their time",
            "√ tokens for linked clusters are in their time",
            "√ Kubernetes APIs of linked clusters answer",
            "√ host names of linked gateways resolve (DNS)",
            "√ gateways of linked clusters are exposed (TCP)",
            "√ gateways of linked clusters are trusted (TLS)",
            "√ gateways of linked clusters are the expected ones (identity)",
            "√ linked clusters admit this one (authorization)",
            "√ gateways of linked clusters answer (round trip)",
            "√ every gateway pod reaches every living link",
            "√ clocks of linked clusters agree",
            "Status check results are √",
        ],
    )
    .await;
    let nothing = async || {
        let short = well(&east, "check -o short").await?;
        ensure!(short == "Status check results are √\n", "{short}");
        let json: Value = serde_json::from_str(&well(&east, "check -o json").await?)?;
        ensure!(json["success"] == true, "{json}");
        Ok(())
    };
    eventually(SOON, "nothing to be wrong", nothing).await;

    exported(&east, &west).await?;
    gateways(&east).await?;
    diagnostics(&east).await?;

    // One pod of two does not reach the link: a warning, since the other does.
    east.start_gateway(&second_gateway).await?;
    east.make_gateway_pod(1, &second_gateway).await?;
    tells(&east, "check", &["east-gateway-0", "east-gateway-1"]).await;

    // West's gateway is gone: not exposed, and nothing is said of trust.
    for gateway in west.gateways() {
        gateway.kill()?;
    }
    let dead = async || {
        let check = ask(&east, "check -o short --wait 0").await?;
        ensure!(check.status.code() == Some(1), "{check:?}");
        contains(&check.stdout, &["× gateways of linked clusters are exposed (TCP)", "* west: refused"])?;
        contains(
            &check.stdout,
            &["hint: the gateway is not exposed: in the linked cluster run `link-cli check`"],
        )?;
        ensure!(!check.stdout.contains("trusted (TLS)"), "{}", check.stdout);
        contains(&well(&east, "gateways").await?, &["west     False          1            -"])?;
        let way = ask(&east, "-n shop diagnostics endpoints my-api-west").await?;
        ensure!(way.status.code() == Some(1), "{way:?}");
        contains(&way.stdout, &["=> it ends at link west: refused"])
    };
    eventually(SOON, "the dead gateway to be told", dead).await;

    revoked(&east, &west).await?;

    // West is gone altogether, and unlinking works all the same.
    west.server.kill().await?;
    contains(&well(&east, "unlink --cluster-name west").await?, &["kind: Link", "name: my-api-west"])?;
    contains(
        &ask(&east, "unlink --cluster-name west --yes --wait 90s").await?.stderr,
        &["Link west in namespace linkspan deleted"],
    )?;
    let again = ask(&east, "unlink --cluster-name west --yes").await?;
    ensure!(again.status.success() && again.stderr.contains("nothing to unlink"), "{again:?}");
    eventually(SOON, "its mirrors to go along", async || {
        let services = well(&east, "services").await?;
        ensure!(!services.contains("my-api-west"), "{services}");
        Ok(())
    })
    .await;
    Ok(())
}

/// The output of `link` is a secret: that is said where somebody sees it, and nowhere else is one printed.
async fn link_with_warning_on_a_terminal(west: &Installation) -> Result<()> {
    let file = ask(west, "link --cluster-name west").await?;
    ensure!(file.status.success() && !file.stderr.contains("warning"), "{}", file.stderr);
    contains(&file.stderr, &["apply this until ", "renews it"])?;
    let first = file.stdout.lines().next().unwrap_or_default();
    ensure!(first.starts_with("# Link west: apply this until "), "{first}");
    contains(&file.stdout, &["kind: Secret", "kind: Link", "mirror.linkerd.io/remote-kubeconfig"])?;
    let alias = well(west, "link-gen --cluster-name west").await?;
    ensure!(alias.contains("kind: Link"), "{alias}");
    let kubeconfig = west.server.write_kubeconfig("terminal", &west.server.admin_kubeconfig()?)?;
    let tool = linkspan_tests::tools::ours("link-cli")?;
    let command =
        format!("{} --kubeconfig {} link --cluster-name west", tool.display(), kubeconfig.display());
    let typed = Program::new("script").args(["-qec", &command, "/dev/null"]).run(COMMAND).await?.success()?;
    contains(&typed, &["warning: this output holds a secret"])
}

/// Exports a Service in west as a user does, and finds it in east.
async fn exported(east: &Installation, west: &Installation) -> Result<()> {
    for side in [east, west] {
        side.server.kubectl(["create", "namespace", "shop"])?.run(COMMAND).await?.success()?;
    }
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": "my-api"},
        "spec": {"ports": [{"name": "http", "port": 8080, "targetPort": 80}]},
    });
    let pods = slice("shop", "my-api", "my-api", &[("http", 80)]).with("pod", Ipv4Addr::new(10, 244, 0, 5));
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [service, pods.0]});
    west.server.apply(&both.to_string()).await?;
    let export = ask(west, "-n shop export my-api").await?;
    ensure!(export.status.success(), "{export:?}");
    contains(&export.stdout, &["Port 8080 of shop/my-api can be called from every cluster"])?;
    tells(west, "check", &["√ exported Services are published", "1 Services"]).await;
    let row = "shop       my-api-west  west       1/1  Mirrored  8080   my-api.shop.svc.cluster.local";
    tells(east, "services -o wide", &[row]).await;
    tells(east, "check", &["√ all mirror services have endpoints", "1 of 22768 ports"]).await;
    let way = ["=> a call arrives", "my-api.shop:8080", "link west by"];
    tells(east, "-n shop diagnostics endpoints my-api-west", &way).await;
    Ok(())
}

async fn gateways(east: &Installation) -> Result<()> {
    let living = "CLUSTER  ALIVE    NUM_SVC      LATENCY  \nwest     True           1  ";
    tells(east, "gateways", &[living]).await;
    let wide = ["P50", "P95", "P99", "CERTIFICATE_UNTIL", ":4143", "ms  "];
    tells(east, "gateways --cluster-name west -o wide", &wide).await;
    let json = async || {
        let json: Value = serde_json::from_str(&well(east, "gateways -o json").await?)?;
        ensure!(json[0]["clusterName"] == "west" && json[0]["alive"] == true, "{json}");
        ensure!(json[0]["numberOfServices"] == 1 && json[0]["latency"].as_u64() >= Some(1), "{json}");
        ensure!(json[0]["certificateExpiresAt"].is_string(), "{json}");
        Ok(())
    };
    eventually(SOON, "the living gateway's JSON", json).await;
    let unknown = ask(east, "gateways --cluster-name north").await?;
    ensure!(unknown.status.code() == Some(1) && unknown.stderr.contains("no link north"), "{unknown:?}");
    Ok(())
}

async fn diagnostics(east: &Installation) -> Result<()> {
    let both = ["# POD east-gateway-0 (1 of 2)", "# POD east-controller (2 of 2)", "gateway_alive"];
    tells(east, "diagnostics proxy-metrics", &both).await;
    let certificates =
        ["own CA", "gateway server", "client of west", "CA of west", "/sa/linkspan-remote-access-default"];
    tells(east, "diagnostics identity", &certificates).await;
    let identity = well(east, "diagnostics identity").await?;
    ensure!(!identity.contains("PRIVATE"), "{identity}");

    let folder = Scratch::new("gather")?;
    let file = folder.path().join("east.tar.gz");
    let file = file.to_str().context("a path that is text")?;
    let read =
        |path: &str| std::fs::read_to_string(folder.path().join(path)).with_context(|| path.to_owned());
    let gathered = async || {
        let told = well(east, &format!("diagnostics gather --file {file}")).await?;
        contains(&told, &[file, "without secrets"])?;
        let unpack =
            Program::new("tar").args(["-xzf", file, "--strip-components=1", "-C"]).arg(folder.path());
        unpack.run(COMMAND).await?.success()?;
        contains(&read("check.txt")?, &["√ gateways of linked clusters answer (round trip)"])
    };
    eventually(SOON, "a bundle of a living link", gathered).await;
    contains(&read("objects/Link-namespace.yaml")?, &["name: west"])?;
    contains(&read("objects/Secret-names.yaml")?, &["name: cluster-credentials-west"])?;
    contains(&read("pods/east-gateway-0/config.txt")?, &["\"identity\""])?;
    contains(&read("pods/east-controller/metrics.txt")?, &["linkspan_leader"])?;
    let all = Program::new("grep")
        .args(["-rlE", "PRIVATE KEY-----|eyJhbGciOi|\"?kubeconfig\"?: [A-Za-z0-9+/]{20}"]);
    let secrets = all.arg(folder.path().join("objects")).arg(folder.path().join("pods")).run(COMMAND).await?;
    ensure!(secrets.stdout.is_empty(), "secrets in {}", secrets.stdout);
    let nowhere = ask(east, "diagnostics gather --file /nowhere/x.tar.gz").await?;
    ensure!(nowhere.status.code() == Some(1) && nowhere.stderr.contains("cannot be written"), "{nowhere:?}");
    Ok(())
}

/// An account of its own for another cluster, made, used, listed and revoked.
async fn revoked(east: &Installation, west: &Installation) -> Result<()> {
    let objects = well(west, "allow --service-account-name partner").await?;
    west.server.apply(&objects).await?;
    let exists = ask(west, "allow --service-account-name partner").await?;
    contains(&exists.stderr, &["Service account with name partner already exists, use --ignore-cluster"])?;
    well(west, "link --cluster-name other --service-account-name partner --long-lived-token").await?;
    let list = well(west, "allow list").await?;
    contains(&list, &["ACCOUNT", "linkspan-remote-access-default", "partner"])?;
    ensure!(list.lines().any(|line| line.starts_with("partner") && line.contains("yes")), "{list}");
    let printed = well(west, "allow revoke --service-account-name partner").await?;
    contains(&printed, &["kind: ServiceAccount", "kind: ClusterRoleBinding", "name: partner-token"])?;
    well(west, "allow revoke --service-account-name partner --yes").await?;
    ensure!(!well(west, "allow list").await?.contains("partner"), "it is gone");
    let again = ask(west, "allow revoke --service-account-name partner --yes").await?;
    ensure!(again.status.success() && again.stderr.contains("nothing to revoke"), "{again:?}");
    let foreign = ask(west, &format!("allow revoke --service-account-name {GATEWAY}")).await?;
    ensure!(
        foreign.status.code() == Some(1) && foreign.stderr.contains("not for linked clusters"),
        "{foreign:?}"
    );
    let gone = ask(west, "link --cluster-name other --service-account-name partner").await?;
    contains(&gone.stderr, &["service account partner does not exist", "link-cli allow"])?;

    // What is no longer exported leaves east.
    contains(&well(west, "-n shop unexport my-api").await?, &["not seen by linked clusters any more"])?;
    let mirror = ["-n", "shop", "get", "services", "-o", "name"];
    let left = async || {
        let names = east.server.kubectl(mirror)?.run(COMMAND).await?.success()?;
        ensure!(!names.contains("my-api-west"), "{names}");
        Ok(())
    };
    eventually(SOON, "the mirror to go", left).await;
    let label = format!("{EXPORTED}=true");
    west.server
        .kubectl(["-n", "shop", "label", "service", "my-api", &label])?
        .run(COMMAND)
        .await?
        .success()?;
    tells(east, "services", &["my-api-west"]).await;
    ensure!(
        well(east, &format!("-n {NAMESPACE} services")).await?.lines().count() == 1,
        "none in our namespace"
    );
    Ok(())
}
