//! A TrafficSplit on the real clusters: stock kube-proxy, real endpoint controllers, a load that must never fail.
//!
//! What is shown, in this order: requests are shared out by weight (S1, S4), weights of zero (S2), a dead backend's share
//! (S3), new weights and header matches (S7), what cannot be a backend or a split (S5, S8), the end of the split (S6); and fail-open, each by doing it: gateways gone,
//! controller gone, Helm uninstall while the split holds. A load of new connections runs through all of it.

mod clusters_split {
    pub(crate) mod load;
}

use anyhow::{Context, Result, ensure};
use clusters_split::load::{Load, counts, pods_of};
use linkspan_core::api::labels::{CONTROLLER, GATEWAY, NAMESPACE, SPLIT};
use linkspan_tests::{
    Need,
    clusters::{
        COMMAND, Cluster, Clusters,
        system::{self, System},
    },
    eventually, have, tools,
};
use std::time::Duration;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(90);
const RELEASE: Duration = Duration::from_secs(300);
/// Requests by which shares are judged, and how far one may be off: two points.
const REQUESTS: usize = 2000;
const OFF: usize = 40;

struct Bench {
    clusters: Clusters,
    ns: String,
    load: Load,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_split_holds_and_no_request_is_lost() -> Result<()> {
    if !have(&[Need::Clusters, Need::Tool("kubectl"), Need::Tool("helm")]) {
        return Ok(());
    }
    let clusters = Clusters::connect().await?;
    let _system = System::install(&clusters, &tools::repository().join("charts"), &[]).await?;
    let namespace = clusters.namespace("split").await?;
    let ns = namespace.name().to_owned();
    system::link_west_into_east(&clusters).await?;
    for (cluster, exported) in [(&clusters.east, "false"), (&clusters.west, "true")] {
        cluster.apply(&api(&ns, exported)).await?;
        let rollout = ["-n", &ns, "rollout", "status", "deployment/my-api", "--timeout=120s"];
        cluster.kubectl(rollout).run(RELEASE).await?.success()?;
    }
    let load = Load::start(&clusters.east, &ns).await?;
    let bench = Bench { clusters, ns, load };
    bench.weights().await?;
    bench.dead_backend().await?;
    bench.matches().await?;
    bench.mistakes().await?;
    bench.end().await?;
    bench.fail_open().await?;
    bench.uninstall().await?;
    drop(namespace);
    Ok(())
}

fn api(ns: &str, exported: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Service
metadata: {{ name: my-api, namespace: {ns}, labels: {{ mirror.linkerd.io/exported: "{exported}" }} }}
spec: {{ selector: {{ app: my-api }}, ports: [{{ name: web, port: 8080 }}] }}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: my-api, namespace: {ns} }}
spec:
  replicas: 2
  selector: {{ matchLabels: {{ app: my-api }} }}
  template:
    metadata: {{ labels: {{ app: my-api }} }}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
        - name: web
          image: linkspan/test-apps:demo
          imagePullPolicy: IfNotPresent
          ports: [{{ containerPort: 8080 }}]
          lifecycle: {{ preStop: {{ exec: {{ command: ["sleep", "2"] }} }} }}
          readinessProbe: {{ httpGet: {{ path: /health, port: 8080 }}, periodSeconds: 1 }}
"#
    )
}

fn split(ns: &str, version: &str, weights: [&str; 2], more: &str) -> String {
    format!(
        r#"
apiVersion: split.smi-spec.io/{version}
kind: TrafficSplit
metadata: {{ name: my-api-split, namespace: {ns} }}
spec:
  service: my-api
  backends:
    - {{ service: my-api, weight: {} }}
    - {{ service: my-api-cluster-west, weight: {} }}
{more}"#,
        weights[0], weights[1]
    )
}

impl Bench {
    fn east(&self) -> &Cluster {
        &self.clusters.east
    }

    async fn split(&self, version: &str, weights: [&str; 2], more: &str) -> Result<()> {
        self.east().apply(&split(&self.ns, version, weights, more)).await
    }

    /// Waits until the split says that it holds.
    async fn active(&self, wanted: &str) -> Result<()> {
        let condition = format!("--for=condition=Active={wanted}");
        let wait = ["-n", &self.ns, "wait", "trafficsplit/my-api-split", &condition, "--timeout=90s"];
        self.east().kubectl(wait).run(SOON * 2).await?.success()?;
        Ok(())
    }

    /// How many of [`REQUESTS`] over one kept connection west answered, and those that nobody did.
    async fn west(&self, flags: &str) -> Result<(usize, usize)> {
        let answers = self.load.ask(REQUESTS, flags).await?;
        let west = pods_of(&self.clusters.west, &self.ns).await?;
        Ok(counts(&answers, &west))
    }

    /// Waits until requests are shared out so.
    async fn shared(&self, what: &str, flags: &str, wanted: usize) -> Result<()> {
        let began = Instant::now();
        loop {
            let (west, other) = self.west(flags).await?;
            if west.abs_diff(wanted) <= OFF && other == 0 {
                println!("FIGURE: {what}: {west} of {REQUESTS} went west (wanted {wanted}, bar {OFF} off)");
                return Ok(());
            }
            ensure!(
                began.elapsed() < SOON,
                "{what}: {west} of {REQUESTS} went west, {other} got no answer of a pod"
            );
        }
    }

    async fn nothing_lost(&self, what: &str) -> Result<()> {
        let (asked, failed) = self.load.so_far().await?;
        println!("FIGURE: {what}: {asked} requests over new connections so far, {} failed", failed.len());
        ensure!(failed.is_empty(), "{what}: {failed:?}");
        ensure!(asked > 0, "{what}: the load does not run");
        Ok(())
    }

    async fn weights(&self) -> Result<()> {
        let began = Instant::now();
        self.split("v1alpha2", ["80", "20"], "").await?;
        self.active("True").await?;
        println!("FIGURE: split applied -> active: {:.1} s", began.elapsed().as_secs_f64());
        self.shared("S1 80/20", "", REQUESTS / 5).await?;
        self.nothing_lost("S1 takeover").await?;
        self.split("v1alpha1", ["500m", "500m"], "").await?;
        self.shared("S4 500m/500m", "", REQUESTS / 2).await?;
        self.split("v1alpha2", ["0", "1"], "").await?;
        self.shared("S2 0/1", "", REQUESTS).await?;
        self.nothing_lost("S2 weight zero").await?;
        self.load.pause().await?;
        self.split("v1alpha2", ["0", "0"], "").await?;
        eventually(SOON, "503 with a reason", async || {
            let answer = self.load.exec("curl -sS -i -m 5 http://my-api:8080/hostname").await?;
            ensure!(
                answer.contains("503") && answer.contains("linkspan-reason: all-weights-zero"),
                "{answer}"
            );
            Ok(())
        })
        .await;
        self.split("v1alpha2", ["80", "20"], "").await?;
        self.shared("80/20 again", "", REQUESTS / 5).await?;
        let stat =
            self.east().link_cli(["-n", &self.ns, "stat", "trafficsplit"])?.run(COMMAND).await?.success()?;
        println!("{stat}");
        ensure!(stat.contains("my-api-cluster-west"), "{stat}");
        self.load.resume().await
    }

    async fn scale(&self, cluster: &Cluster, ns: &str, name: &str, replicas: u32) -> Result<()> {
        let (deployment, replicas) = (format!("deployment/{name}"), format!("--replicas={replicas}"));
        cluster.kubectl(["-n", ns, "scale", &deployment, &replicas]).run(COMMAND).await?.success()?;
        let rollout = ["-n", ns, "rollout", "status", &deployment, "--timeout=120s"];
        cluster.kubectl(rollout).run(RELEASE).await?.success()?;
        Ok(())
    }

    async fn dead_backend(&self) -> Result<()> {
        self.scale(&self.clusters.west, &self.ns, "my-api", 0).await?;
        self.shared("S3 west has no pods", "", 0).await?;
        self.nothing_lost("S3 a backend dies").await?;
        self.scale(&self.clusters.west, &self.ns, "my-api", 2).await?;
        self.shared("west is back", "", REQUESTS / 5).await?;
        self.nothing_lost("S3 a backend comes back").await
    }

    async fn matches(&self) -> Result<()> {
        let group = format!(
            "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\nmetadata: {{ name: beta, namespace: {} }}\n\
             spec: {{ matches: [ {{ name: beta, headers: {{ x-beta: \"yes\" }} }} ] }}\n",
            self.ns
        );
        self.east().apply(&group).await?;
        let matches = "  matches: [ { kind: HTTPRouteGroup, name: beta } ]\n";
        self.split("v1alpha4", ["0", "1"], matches).await?;
        self.shared("S7 with the header", "-H 'x-beta: yes'", REQUESTS).await?;
        self.shared("S7 without it", "", 0).await?;
        self.split("v1alpha2", ["80", "20"], "").await?;
        self.shared("80/20 without matches", "", REQUESTS / 5).await?;
        self.nothing_lost("S7 matches").await
    }

    /// Waits until split `name` has the condition.
    async fn says(&self, name: &str, condition: &str) -> Result<()> {
        let (split, condition) = (format!("trafficsplit/{name}"), format!("--for=condition={condition}"));
        let wait = ["-n", &self.ns, "wait", &split, &condition, "--timeout=90s"];
        self.east().kubectl(wait).run(SOON * 2).await?.success()?;
        Ok(())
    }

    async fn mistakes(&self) -> Result<()> {
        let service = |name: &str, port: u16| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{ name: {name}, namespace: {} }}\n\
                 spec: {{ selector: {{ app: my-api }}, ports: [{{ port: {port} }}] }}\n---\n",
                self.ns
            )
        };
        self.east().apply(&(service("other-port", 9090) + &service("second", 8080))).await?;
        self.split("v1alpha2", ["80", "20"], "    - { service: other-port, weight: 100 }\n").await?;
        self.says("my-api-split", "BackendsResolved=False").await?;
        self.shared("S5 a backend lacks the port", "", REQUESTS / 5).await?;
        self.split("v1alpha2", ["80", "20"], "").await?;
        self.says("my-api-split", "BackendsResolved=True").await?;
        for (name, apex, backend) in
            [("too", "my-api", "my-api"), ("lost", "nobody", "my-api"), ("of-split", "second", "my-api")]
        {
            let wrong = format!(
                "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\n\
                 metadata: {{ name: {name}, namespace: {} }}\n\
                 spec: {{ service: {apex}, backends: [ {{ service: {backend}, weight: 1 }} ] }}\n",
                self.ns
            );
            self.east().apply(&wrong).await?;
            self.says(name, "Active=False").await?;
            let events =
                ["-n", &self.ns, "get", "events.events.k8s.io", "-o", "jsonpath={.items[*].regarding.name}"];
            eventually(SOON, format!("an Event on split {name}"), async || {
                let told = self.east().kubectl(events).run(COMMAND).await?.success()?;
                ensure!(told.split_whitespace().any(|regarding| regarding == name), "{told}");
                Ok(())
            })
            .await;
            let delete = ["-n", &self.ns, "delete", "trafficsplit", name];
            self.east().kubectl(delete).run(COMMAND).await?.success()?;
        }
        self.shared("S8 after splits that cannot hold", "", REQUESTS / 5).await?;
        self.nothing_lost("S5 and S8").await
    }

    async fn end(&self) -> Result<()> {
        let delete = ["-n", &self.ns, "delete", "trafficsplit", "my-api-split"];
        self.east().kubectl(delete).run(COMMAND).await?.success()?;
        self.given_back("S6 the split is deleted").await
    }

    /// Waits until nothing of ours is left at the apex, and nothing was lost on the way.
    async fn given_back(&self, what: &str) -> Result<()> {
        let began = Instant::now();
        eventually(SOON, format!("{what}: the apex to be given back"), async || {
            let get = ["-n", &self.ns, "get", "service", "my-api", "-o", "yaml"];
            let apex = self.east().kubectl(get).run(COMMAND).await?.success()?;
            ensure!(!apex.contains(SPLIT), "{apex}");
            let left = ["-n", &self.ns, "get", "endpointslices,services", "-l", SPLIT, "-o", "name"];
            let left = self.east().kubectl(left).run(COMMAND).await?.success()?;
            ensure!(left.is_empty(), "left: {left}");
            Ok(())
        })
        .await;
        println!("FIGURE: {what}: given back after {:.1} s", began.elapsed().as_secs_f64());
        self.shared(what, "", 0).await?;
        self.nothing_lost(what).await
    }

    async fn fail_open(&self) -> Result<()> {
        self.split("v1alpha2", ["80", "20"], "").await?;
        self.active("True").await?;
        self.scale(self.east(), NAMESPACE, CONTROLLER, 0).await?;
        self.shared("the controller is gone", "", REQUESTS / 5).await?;
        self.scale(self.east(), NAMESPACE, CONTROLLER, 1).await?;
        self.nothing_lost("the controller goes and comes").await?;
        self.scale(self.east(), NAMESPACE, GATEWAY, 0).await?;
        self.active("False").await?;
        self.shared("no gateway is left", "", 0).await?;
        self.nothing_lost("gateways drain away").await?;
        self.scale(self.east(), NAMESPACE, GATEWAY, 2).await?;
        self.active("True").await?;
        self.shared("gateways are back", "", REQUESTS / 5).await?;
        self.nothing_lost("gateways come back").await?;
        // Killed, not asked: the few requests under way may fail, and then no more.
        let killed = Instant::now();
        let kill = [
            "-n",
            NAMESPACE,
            "delete",
            "pods",
            "-l",
            "app.kubernetes.io/component=gateway",
            "--grace-period=0",
            "--force",
        ];
        self.east().kubectl(kill).run(COMMAND).await?.success()?;
        let failed =
            self.load.until_well(SOON).await.context("requests fail though the apex has pods of its own")?;
        println!(
            "FIGURE: both gateways killed: {failed} requests failed, the last {:.1} s later",
            killed.elapsed().as_secs_f64()
        );
        self.active("True").await
    }

    async fn uninstall(&self) -> Result<()> {
        self.shared("before the uninstall", "", REQUESTS / 5).await?;
        self.load.forget().await?;
        let uninstall =
            format!("helm --kube-context {} -n {NAMESPACE} uninstall linkspan --wait", self.east().context);
        linkspan_tests::clusters::shell(&uninstall, RELEASE).await?.success()?;
        self.given_back("Helm uninstall").await
    }
}
