//! Many Links to one API server, each through a local port and to a namespace of its own: the memory they take, and
//! that one which stalls delays no other.

use crate::{
    Bed, LONG,
    load::{self, SHOP, object},
    report::{Bar, Report},
    rss,
};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, api::PostParams};
use linkspan_core::api::{
    exported_service::{ExportedPort, ExportedService, ExportedServiceSpec},
    labels,
    link::Link,
    names,
};
use linkspan_tests::{relay::Relay, wait::until};
use serde_json::json;
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::time::Instant;

/// Exported Services per Link.
const SERVICES: usize = 40;

fn export(namespace: &str, name: &str) -> ExportedService {
    let port = ExportedPort { port: 80, protocol: "TCP".to_owned(), ready: true, ..ExportedPort::default() };
    let spec = ExportedServiceSpec {
        namespace: SHOP.to_owned(),
        name: name.to_owned(),
        labels: BTreeMap::from([(labels::EXPORTED.to_owned(), "true".to_owned())]),
        ports: vec![port],
        ..ExportedServiceSpec::default()
    };
    let mut export = ExportedService::new(&names::export_name(SHOP, name), spec);
    export.metadata.namespace = Some(namespace.to_owned());
    export
}

/// Adds the rows of `links` Links.
pub(crate) async fn measure(links: usize, report: &mut Report) -> Result<()> {
    eprintln!("{links} Links with {SERVICES} Services each");
    let mut bed = Bed::new(&[]).await?;
    let relays = prepare(&bed, links).await?;
    bed.east.server.faults().forget_requests();
    bed.east.start_controller().await?;
    let pid = bed.east.controller()?.pid();
    let start = Instant::now();
    until(LONG, async || {
        let count = load::made(&bed, "/services");
        ensure!(count >= links * SERVICES, "{count} mirrors");
        Ok(())
    })
    .await?;
    report.note(&format!("first sync of {links} Links"), "s", start.elapsed().as_secs_f64());
    tokio::time::sleep(Duration::from_secs(15)).await;
    let what = format!("RSS with {links} Links of {SERVICES} Services");
    report.add(Bar::at_most(&what, "MiB", 150.0, rss(pid)?));

    // One stalls; all others are asked for something new.
    let stalled = relays.first().context("there is no Link")?;
    let calm = news(&bed, links, "calm").await?;
    stalled.pause();
    let beside = news(&bed, links, "beside").await?;
    report.note("news of all other Links, none stalled", "s", calm);
    report.add(Bar::at_most("news of all other Links, one stalled", "s", (calm * 1.5).max(2.0), beside));
    stalled.resume();
    Ok(())
}

/// Something new is exported for every Link but the first: seconds until all of it is mirrored.
async fn news(bed: &Bed, links: usize, name: &str) -> Result<f64> {
    let client = &bed.in_west;
    bed.east.server.faults().forget_requests();
    let start = Instant::now();
    let all = stream::iter(1..links).map(|n| async move {
        let namespace = format!("cluster-{n}");
        let api = Api::<ExportedService>::namespaced(client.clone(), &namespace);
        api.create(&PostParams::default(), &export(&namespace, name)).await
    });
    all.buffer_unordered(32).try_collect::<Vec<_>>().await?;
    until(Duration::from_secs(120), async || {
        let count = load::made(bed, "/services");
        ensure!(count >= links - 1, "{count} of {} mirrors of {name}", links - 1);
        Ok(())
    })
    .await?;
    Ok(start.elapsed().as_secs_f64())
}

/// Namespaces with exports in west; Links, Secrets and relays in east.
async fn prepare(bed: &Bed, links: usize) -> Result<Vec<Relay>> {
    let account = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
         "subjects": [{"kind": "ServiceAccount", "name": labels::REMOTE_ACCESS_ACCOUNT, "namespace": labels::NAMESPACE}]}]});
    bed.west.server.apply(&account.to_string()).await?;
    let may_read = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "bench"},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
         "subjects": [{"kind": "ServiceAccount", "name": labels::CONTROLLER, "namespace": labels::NAMESPACE}]}]});
    bed.east.server.apply(&may_read.to_string()).await?;
    let kubeconfig = bed.west.server.kubeconfig_of(labels::NAMESPACE, labels::REMOTE_ACCESS_ACCOUNT).await?;
    let url = bed.west.server.url();
    let target: SocketAddr = url.trim_start_matches("https://").parse()?;
    let mut relays = Vec::new();
    for n in 0..links {
        let relay = Relay::start((Ipv4Addr::LOCALHOST, 0).into(), target)?;
        let own = kubeconfig.replace(&url, &format!("https://{}", relay.address()));
        relays.push(relay);
        let name = format!("c{n}");
        let data = BTreeMap::from([("kubeconfig", ByteString(own.into_bytes()))]);
        let secret: Secret = object(json!({"metadata": {"name": names::credentials_secret(&name)},
            "type": "mirror.linkerd.io/remote-kubeconfig", "data": data}))?;
        let link: Link = object(json!({"apiVersion": "multicluster.linkerd.io/v1alpha3", "kind": "Link",
            "metadata": {"name": name}, "spec": {
                "targetClusterName": name, "targetClusterLinkerdNamespace": format!("cluster-{n}"),
                "gatewayAddress": "10.213.255.1", "gatewayPort": "4143",
                "gatewayIdentity": format!("spiffe://u.linkspan/ns/cluster-{n}/sa/linkspan-gateway"),
                "selector": {"matchLabels": {labels::EXPORTED: "true"}}}}))?;
        let (secrets, all) = (
            Api::<Secret>::namespaced(bed.in_east.clone(), labels::NAMESPACE),
            Api::<Link>::namespaced(bed.in_east.clone(), labels::NAMESPACE),
        );
        secrets.create(&PostParams::default(), &secret).await?;
        all.create(&PostParams::default(), &link).await?;
    }
    let client = &bed.in_west;
    let all = stream::iter(0..links).map(|n| async move {
        let namespace = format!("cluster-{n}");
        load::namespace(client, &namespace).await?;
        let api = Api::<ExportedService>::namespaced(client.clone(), &namespace);
        for i in 0..SERVICES {
            api.create(&PostParams::default(), &export(&namespace, &format!("svc-{i}"))).await?;
        }
        anyhow::Ok(())
    });
    all.buffer_unordered(16).try_collect::<()>().await?;
    Ok(relays)
}
