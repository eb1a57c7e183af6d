//! Watches everything that concerns splits into the table.

use crate::{
    observe::watch::{Lost, Scope, Seen, follow, follow_kind},
    snapshot::Key,
    split::{
        run::Splitter,
        table::{Known, SplitTable},
    },
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice, networking::v1::NetworkPolicy};
use kube::{
    Api, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use linkspan_core::api::{
    labels::{MIRRORED_SERVICE, SPLIT},
    route_group::{self, HTTPRouteGroup},
    traffic_split::{self, TrafficSplit},
};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// How often a cluster without SMI's definitions is asked whether they are there by now.
const ABSENT: Duration = Duration::from_secs(10);

impl Splitter {
    /// Watches Services that are no mirrors, for ever; what concerns no split is not kept.
    pub async fn services(self) {
        let scope = Scope::labels(format!("!{MIRRORED_SERVICE}"));
        let keep = |service: Service| {
            let concerns = self.read(|table| table.services.concerns(&service));
            concerns.then(|| without_status(service))
        };
        follow(Api::<Service>::all(self.client.clone()), scope, keep, |seen| match seen {
            Seen::Begins => self.change(|t| t.services.begins()),
            Seen::All(all) => self.change(|t| t.services.reset(all)),
            Seen::Now(service) => self.change(|t| t.services.seen(service)),
            Seen::Gone(service) => self.change(|t| t.services.gone(&service)),
            Seen::Up => {}
            Seen::Lost(lost) => warn_lost("Services", &lost),
        })
        .await;
    }

    /// Watches the slices of apexes and shadows, for ever.
    pub async fn slices(self) {
        let keep = |slice: EndpointSlice| Some(trimmed(slice));
        follow(Api::<EndpointSlice>::all(self.client.clone()), Scope::labels(SPLIT), keep, |seen| {
            self.seen(seen, "slices of split Services", |t| &mut t.slices);
        })
        .await;
    }

    /// Watches network policies, for ever.
    pub async fn policies(self) {
        let keep = |policy: NetworkPolicy| Some(trimmed(policy));
        follow(Api::<NetworkPolicy>::all(self.client.clone()), Scope::default(), keep, |seen| {
            self.seen(seen, "NetworkPolicies", |t| &mut t.policies);
        })
        .await;
    }

    /// Watches splits, for ever, in the newest version that the cluster serves.
    pub async fn splits(self) {
        let read = |object: DynamicObject| object.try_parse::<TrafficSplit>().ok();
        self.follow_smi(traffic_split::GROUP, "TrafficSplit", "trafficsplits", |t| &mut t.splits, read).await;
    }

    /// Watches route groups, for ever.
    pub async fn groups(self) {
        let read = |object: DynamicObject| object.try_parse::<HTTPRouteGroup>().ok();
        self.follow_smi(route_group::GROUP, "HTTPRouteGroup", "httproutegroups", |t| &mut t.groups, read)
            .await;
    }

    async fn follow_smi<K: ResourceExt>(
        &self,
        group: &str,
        kind: &str,
        plural: &str,
        list: impl Fn(&mut SplitTable) -> &mut Known<K> + Copy,
        read: impl Fn(DynamicObject) -> Option<K> + Copy,
    ) {
        let keep = |object: DynamicObject| {
            let key = Key::of(&object);
            let read = read(trimmed(object));
            if read.is_none() {
                tracing::warn!(%key, plural, "an object has another form than its definition says and is passed over");
            }
            read
        };
        loop {
            let versions: &[&str] = if group == traffic_split::GROUP {
                &traffic_split::VERSIONS
            } else {
                &[route_group::VERSION]
            };
            match self.served(group, versions).await {
                Ok(Some(version)) => {
                    let kind = GroupVersionKind::gvk(group, &version, kind);
                    let resource = ApiResource::from_gvk_with_plural(&kind, plural);
                    if group == traffic_split::GROUP {
                        self.version.send_replace(Some(resource.clone()));
                    }
                    let api = Api::<DynamicObject>::all_with(self.client.clone(), &resource);
                    follow_kind(api, Scope::default(), keep, |seen| {
                        // The definition is gone, or serves another version now: look again.
                        let absent = matches!(&seen, Seen::Lost(Lost { reason: "NotFound", .. }));
                        if !absent {
                            self.seen(seen, plural, list);
                        }
                        !absent
                    })
                    .await;
                }
                // Nobody can have made one.
                Ok(None) => self.change(|t| list(t).reset([])),
                Err(error) => tracing::warn!(group, error, "the API server does not say what it serves"),
            }
            sleep(ABSENT).await;
        }
    }

    /// The first of `versions` that is served.
    async fn served(&self, group: &str, versions: &[&str]) -> Result<Option<String>, String> {
        let groups = timeout(ABSENT, self.client.list_api_groups()).await;
        let groups = groups.map_err(|_| "no answer in time".to_owned())?.map_err(|e| e.to_string())?;
        let Some(found) = groups.groups.into_iter().find(|g| g.name == group) else { return Ok(None) };
        let is_served = |version: &&&str| found.versions.iter().any(|v| v.version == **version);
        Ok(versions.iter().find(is_served).map(|v| (*v).to_owned()))
    }

    fn seen<K: ResourceExt>(
        &self,
        seen: Seen<K>,
        what: &str,
        list: impl Fn(&mut SplitTable) -> &mut Known<K>,
    ) {
        match seen {
            Seen::All(all) => self.change(|t| list(t).reset(all)),
            Seen::Now(object) => self.change(|t| list(t).seen(object)),
            Seen::Gone(object) => self.change(|t| list(t).gone(&object)),
            Seen::Up | Seen::Begins => {}
            Seen::Lost(lost) => warn_lost(what, &lost),
        }
    }
}

fn warn_lost(what: &str, lost: &Lost) {
    tracing::warn!(reason = lost.reason, error = lost.message, "{what} cannot be watched");
}

/// `service` without what nobody here reads.
pub(super) fn without_status(service: Service) -> Service {
    trimmed(Service { status: None, ..service })
}

/// `object` without what the API server notes of its writers.
fn trimmed<K: ResourceExt>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}
