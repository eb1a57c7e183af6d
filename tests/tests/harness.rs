//! The harness keeps its own promises.

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, ServiceAccount},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Error,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use linkspan_core::api::{exported_service::ExportedService, link::Link};
use linkspan_tests::{
    ApiServer, Need, Options, Program,
    api_server::CONTROLLERS,
    artifacts, eventually, have,
    netns::Network,
    relay::Relay,
    scratch,
    wan::{Wan, line::Quality},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const SOON: Duration = Duration::from_secs(30);
/// The small process that some tests start.
const PEER: &str = env!("CARGO_BIN_EXE_test-peer");

fn config_map(name: &str, value: &str) -> ConfigMap {
    let mut map =
        ConfigMap { data: Some(BTreeMap::from([("key".into(), value.into())])), ..ConfigMap::default() };
    map.metadata.name = Some(name.to_owned());
    map
}

async fn value(client: &Client, name: &str) -> Result<String> {
    let map = Api::<ConfigMap>::default_namespaced(client.clone()).get(name).await?;
    map.data.and_then(|mut d| d.remove("key")).context("no such key")
}

/// The status of an answer that must be an error of the API.
fn status<T>(answer: Result<T, Error>) -> u16 {
    match answer {
        Err(Error::Api(status)) => status.code,
        Err(other) => panic!("not an answer of the API: {other}"),
        Ok(_) => 200,
    }
}

#[tokio::test]
async fn two_api_servers_stand_side_by_side() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let (east, west) = tokio::join!(ApiServer::start("east"), ApiServer::start("west"));
    let (east, west) = (east.unwrap(), west.unwrap());
    println!("ready after {:?} and {:?}, both at once", east.ready_after(), west.ready_after());
    for server in [&east, &west] {
        let maps = Api::default_namespaced(server.admin().await.unwrap());
        maps.create(&PostParams::default(), &config_map("whoami", server.name())).await.unwrap();
    }
    for server in [&east, &west] {
        assert_eq!(value(&server.admin().await.unwrap(), "whoami").await.unwrap(), server.name());
    }
    let alone = ApiServer::start("alone").await.unwrap();
    println!("ready after {:?}, beside two others", alone.ready_after());
}

#[test]
fn a_panicking_test_leaves_nothing_behind() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let mut pids = Vec::new();
    let body = std::panic::AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = Options { controllers: CONTROLLERS, ..Options::default() };
            let server = ApiServer::start_with("doomed", options).await.unwrap();
            pids.extend(server.pids());
            panic!("on purpose");
        })
    });
    let end = std::panic::catch_unwind(body).unwrap_err();
    assert_eq!(end.downcast_ref(), Some(&"on purpose"));
    assert_eq!(pids.len(), 3);
    assert!(pids.iter().all(|pid| !scratch::is_alive(*pid)), "one of {pids:?} lives");
    let kept = artifacts::folder();
    assert!(kept.join("doomed-apiserver.log").is_file(), "the log of a failed test is kept");
    std::fs::remove_dir_all(kept).unwrap();
}

#[tokio::test]
async fn a_killed_test_leaves_no_process() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let scratch = scratch::Scratch::new("killed").unwrap();
    let file = scratch.path().join("pids");
    let program = Program::new(PEER).arg("api-server").arg(&file);
    let mut process = program.start("doomed-test").unwrap();
    let pids: Vec<u32> = eventually(Duration::from_secs(90), "the child's processes", async || {
        process.running()?;
        Ok(serde_json::from_str(&std::fs::read_to_string(&file)?)?)
    })
    .await;
    assert!(pids.iter().all(|pid| scratch::is_alive(*pid)));
    process.kill().unwrap();
    eventually(SOON, "its processes to end", async || {
        // Whoever inherits them may not have reaped them yet: what is dead has no command line.
        let command = |pid: &u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let alive: Vec<_> = pids.iter().filter(|pid| !command(pid).is_empty()).collect();
        ensure!(alive.is_empty(), "{alive:?} live");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn an_account_may_do_what_its_role_says_and_nothing_else() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let server = ApiServer::start("rbac").await.unwrap();
    let admin = server.admin().await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "default");
    let mut account = ServiceAccount::default();
    account.metadata.name = Some("visitor".into());
    accounts.create(&PostParams::default(), &account).await.unwrap();

    let visitor = server.client_as("default", "visitor").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(visitor, "default");
    assert_eq!(status(maps.list(&ListParams::default()).await), 403);

    let role = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
         "metadata": {"name": "read", "namespace": "default"},
         "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
         "metadata": {"name": "read", "namespace": "default"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "read"},
         "subjects": [{"kind": "ServiceAccount", "name": "visitor", "namespace": "default"}]},
    ]});
    server.apply(&role.to_string()).await.unwrap();
    eventually(SOON, "the role to be in force", async || Ok(maps.list(&ListParams::default()).await?)).await;
    assert_eq!(status(maps.create(&PostParams::default(), &config_map("a", "b")).await), 403);

    accounts.delete("visitor", &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the token of a deleted account to be refused", async || {
        let code = status(maps.list(&ListParams::default()).await);
        ensure!(code == 401, "answered {code}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn faults_are_what_a_client_meets() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let mut server = ApiServer::start("faulty").await.unwrap();
    let admin = server.admin().await.unwrap();
    Api::default_namespaced(admin.clone())
        .create(&PostParams::default(), &config_map("a", "b"))
        .await
        .unwrap();
    let client = server.client(&server.admin_kubeconfig().unwrap()).await.unwrap();
    assert_eq!(value(&client, "a").await.unwrap(), "b");

    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    server.faults().fail("GET", "/configmaps/a", 500, 1);
    assert_eq!(status(maps.get("a").await), 500, "the next request that is named fails");
    assert_eq!(value(&client, "a").await.unwrap(), "b", "and only that one");
    let seen: Vec<_> = server.faults().requests().iter().map(|s| (s.method.clone(), s.status)).collect();
    assert_eq!(seen, [("GET".to_owned(), 200), ("GET".to_owned(), 500), ("GET".to_owned(), 200)]);

    server.faults().bytes().delay(Duration::from_millis(200));
    let begun = Instant::now();
    value(&client, "a").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400), "there and back took {:?}", begun.elapsed());
    server.faults().bytes().delay(Duration::ZERO);

    server.faults().bytes().pause();
    let held = tokio::time::timeout(Duration::from_millis(500), value(&client, "a")).await;
    assert!(held.is_err(), "an answer came through while everything is held back: {held:?}");
    assert_eq!(value(&admin, "a").await.unwrap(), "b", "the test itself sees past the fault");
    server.faults().bytes().resume();
    eventually(SOON, "an answer after the pause", async || value(&client, "a").await).await;

    server.kill().await.unwrap();
    let address = server.faults().bytes().address();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    server.restart().await.unwrap();
    let after = eventually(SOON, "an answer after the restart", async || value(&client, "a").await).await;
    assert_eq!(after, "b", "the data outlive the server");
}

#[tokio::test]
async fn a_watch_that_is_cut_ends() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let server = ApiServer::start("cut").await.unwrap();
    let client = server.client(&server.admin_kubeconfig().unwrap()).await.unwrap();
    let request = http::Request::get("/api/v1/namespaces?watch=true").body(Vec::new()).unwrap();
    let mut watch = std::pin::pin!(client.send(request.map(Into::into)).await.unwrap().into_body());
    let mut frame = async || http_body_util::BodyExt::frame(&mut watch).await;
    let first = tokio::time::timeout(SOON, frame()).await.unwrap().unwrap().unwrap();
    assert!(first.data_ref().unwrap().starts_with(br#"{"type":"ADDED""#));
    server.faults().bytes().cut();
    let end = async { while let Some(Ok(_)) = frame().await {} };
    tokio::time::timeout(SOON, end).await.expect("a watch ends when its connection does");
}

#[tokio::test]
async fn controllers_run_when_asked_for() {
    if !have(&[Need::ApiServer, Need::Tool("kube-controller-manager")]) {
        return;
    }
    let options = Options { controllers: CONTROLLERS, ..Options::default() };
    let server = ApiServer::start_with("managed", options).await.unwrap();
    let admin = server.admin().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(admin.clone());
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("short-lived".into());
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), "short-lived");
    eventually(SOON, "the namespace's own account", async || Ok(accounts.get("default").await?)).await;
    let maps: Api<ConfigMap> = Api::namespaced(admin, "short-lived");
    let owner = maps.create(&PostParams::default(), &config_map("owner", "")).await.unwrap();
    let mut owned = config_map("owned", "");
    owned.metadata.owner_references =
        Some(vec![kube::Resource::controller_owner_ref(&owner, &()).expect("it was read from the API")]);
    maps.create(&PostParams::default(), &owned).await.unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the owned object to go with its owner", async || {
        ensure!(maps.get_opt("owned").await?.is_none(), "it is there");
        Ok(())
    })
    .await;
    namespaces.delete("short-lived", &DeleteParams::default()).await.unwrap();
    eventually(SOON, "the namespace to be gone", async || {
        let left = namespaces.get_opt("short-lived").await?.and_then(|n| n.status);
        ensure!(left.is_none(), "it is there: {left:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn namespaces_reach_each_other_and_the_test() {
    if !have(&[Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("bash")]) {
        return;
    }
    let network = Network::new().unwrap();
    let (a, b) = (network.namespace().unwrap(), network.namespace().unwrap());
    let answer = async |stream: &mut TcpStream| {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map(|_| text)
    };

    // From a namespace to the test.
    let listener = TcpListener::bind((network.host_address(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let say = format!("echo hello >/dev/tcp/{}/{port}", network.host_address());
    let mut said = a.program("bash").args(["-c", &say]).start("say").unwrap();
    let (mut stream, from) = tokio::time::timeout(SOON, listener.accept()).await.unwrap().unwrap();
    assert_eq!(from.ip(), a.address(), "it is known by its own address");
    assert_eq!(answer(&mut stream).await.unwrap(), "hello\n");
    eventually(SOON, "bash to end", async || {
        ensure!(said.running().is_err(), "it runs");
        Ok(())
    })
    .await;

    // From one namespace to the other, and no longer when one is unplugged.
    // Inside, every port is free.
    let mut server =
        Program::new(PEER).args(["answer", "0.0.0.0:7000", "hello"]).within(&b).start("peer").unwrap();
    let mut ask = async || -> Result<()> {
        server.running()?;
        let ask = format!("cat </dev/tcp/{}/7000", b.address());
        let asked = a.program("timeout").args(["2", "bash", "-c", &ask]).run(SOON).await?.success()?;
        ensure!(asked == "hello", "it said {asked:?}");
        Ok(())
    };
    eventually(SOON, "an answer", &mut ask).await;
    b.unplug().unwrap();
    ask().await.expect_err("no answer comes from a namespace that is unplugged");
    b.plug().unwrap();
    eventually(SOON, "the way to be open again", &mut ask).await;
    server.kill().unwrap();

    let name = a.name().to_owned();
    drop((a, b, network));
    assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is left");
}

#[tokio::test]
async fn a_namespace_reaches_an_api_server() {
    if !have(&[Need::Root, Need::ApiServer, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("kubectl")]) {
        return;
    }
    let network = Network::new().unwrap();
    let inside = network.namespace().unwrap();
    let options = Options { address: network.host_address().into(), ..Options::default() };
    let server = ApiServer::start_with("bridged", options).await.unwrap();
    let kubeconfig = server.write_kubeconfig("admin", &server.admin_kubeconfig().unwrap()).unwrap();
    let kubectl =
        inside.program("kubectl").args(["get", "namespaces", "-o", "name"]).env("KUBECONFIG", kubeconfig);
    let listed = kubectl.run(SOON).await.unwrap().success().unwrap();
    assert!(listed.contains("namespace/kube-system"), "{listed}");
}

#[tokio::test]
async fn a_relay_keeps_order_and_half_close() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let relay = Relay::start("127.0.0.1:0".parse().unwrap(), listener.local_addr().unwrap()).unwrap();
    relay.delay(Duration::from_millis(50));
    let mut client = TcpStream::connect(relay.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    for text in ["one ", "two ", "three"] {
        client.write_all(text.as_bytes()).await.unwrap();
    }
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "one two three");
    server.write_all(b"after the other side's end").await.unwrap();
    drop(server);
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "after the other side's end");
}

#[tokio::test]
async fn our_definitions_are_accepted_and_all_versions_served() {
    if !have(&[Need::ApiServer]) {
        return;
    }
    let server = ApiServer::start("definitions").await.unwrap();
    let admin = server.admin().await.unwrap();
    server.apply_definitions().await.unwrap();
    let crds: Api<CustomResourceDefinition> = Api::all(admin.clone());
    for crd in crds.list(&ListParams::default()).await.unwrap() {
        let conditions = crd.status.unwrap().conditions.unwrap_or_default();
        assert!(!conditions.iter().any(|c| c.type_ == "NonStructuralSchema"), "{conditions:?}");
    }

    let links: Api<Link> = Api::default_namespaced(admin.clone());
    for version in ["v1alpha1", "v1alpha2", "v1alpha3"] {
        let gvk = GroupVersionKind::gvk("multicluster.linkerd.io", version, "Link");
        let resource = ApiResource::from_gvk(&gvk);
        let old: Api<DynamicObject> = Api::default_namespaced_with(admin.clone(), &resource);
        let spec = json!({
            "targetClusterName": version, "gatewayAddress": "10.0.0.1,gw.example", "gatewayPort": "4143",
            "gatewayIdentity": "spiffe://u.linkspan/ns/linkspan/sa/linkspan-gateway",
            "probeSpec": {"path": "/ready", "port": "4191", "period": "3s"},
            "selector": {"matchLabels": {"mirror.linkerd.io/exported": "true"}},
        });
        let link = DynamicObject::new(version, &resource).data(json!({"spec": spec}));
        old.create(&PostParams::default(), &link).await.unwrap();
        let read = links.get(version).await.unwrap();
        assert_eq!(serde_json::to_value(&read.spec).unwrap()["probeSpec"]["period"], "3s");
        assert_eq!(read.spec.settings().unwrap().gateway_hosts, ["10.0.0.1", "gw.example"]);
        let again = old.get(version).await.unwrap();
        assert_eq!(again.data["spec"], spec, "what was written in {version} is read back in {version}");
    }
    let patch = json!({"status": {"gatewayAddresses": ["10.0.0.2:4143"]}});
    links.patch_status("v1alpha1", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let status = links.get("v1alpha1").await.unwrap().status.unwrap();
    assert_eq!(status.gateway_addresses, ["10.0.0.2:4143"]);

    let exports: Api<ExportedService> = Api::default_namespaced(admin);
    let export: ExportedService = serde_json::from_value(json!({
        "metadata": {"name": "default.my-api"},
        "spec": {"namespace": "default", "name": "my-api", "labels": {"a": "b"},
                 "ports": [{"name": "http", "port": 8080, "protocol": "TCP", "targetPort": 80, "ready": true}]},
    }))
    .unwrap();
    exports.create(&PostParams::default(), &export).await.unwrap();
    assert_eq!(exports.get("default.my-api").await.unwrap().spec, export.spec);
}

#[tokio::test]
async fn a_wide_area_line_delays_and_can_be_cut() {
    if !have(&[Need::Root, Need::Tool("ip"), Need::Tool("nsenter"), Need::Tool("bash"), Need::Tun]) {
        return;
    }
    let network = Network::new().unwrap();
    let (a, b) = (network.namespace().unwrap(), network.namespace().unwrap());
    let far = Quality::delay(Duration::from_millis(100));
    let wan = Wan::between(&a, &b, far, 1).unwrap();
    let (_, address) = wan.addresses();
    let mut server =
        Program::new(PEER).args(["answer", "0.0.0.0:7000", "hello"]).within(&b).start("peer").unwrap();
    let mut ask = async || -> Result<Duration> {
        server.running()?;
        let ask = format!("cat </dev/tcp/{address}/7000");
        let began = Instant::now();
        let asked = a.program("timeout").args(["2", "bash", "-c", &ask]).run(SOON).await?.success()?;
        ensure!(asked == "hello", "it said {asked:?}");
        Ok(began.elapsed())
    };
    let took = eventually(SOON, "an answer over the line", &mut ask).await;
    assert!(
        took >= Duration::from_millis(400),
        "connecting and answering are four ways, which took {took:?}"
    );
    wan.cut(true);
    ask().await.expect_err("nothing passes a cut line");
    wan.cut(false);
    eventually(SOON, "the way to be open again", &mut ask).await;
    let counts = wan.counts().unwrap();
    assert!(counts.lost > 0 && counts.overflow == 0 && counts.hidden == 0, "{counts:?}");
    server.kill().unwrap();
}
