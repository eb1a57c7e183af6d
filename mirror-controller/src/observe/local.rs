//! This cluster's side: Links, namespaces, mirrors, slices, and where the gateway pods are.

use crate::{
    gateways::{Gateways, places},
    link::view::LinkView,
    metrics::Watches,
    observe::watch::{Scope, Seen, follow},
    snapshot::{
        Key,
        standing::{StandingService, StandingSlice},
    },
    world::World,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta};
use linkspan_core::{
    api::{
        labels::{GATEWAY, MANAGED_BY, MIRRORED_SERVICE, SLICE_MANAGED_BY, SLICE_SERVICE_NAME, SPLIT},
        link::Link,
    },
    process::readiness::Readiness,
};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::watch;

/// All Links as they were read, status included.
pub type Links = BTreeMap<String, Link>;

/// Where what is observed goes.
#[derive(Clone)]
pub struct Local {
    /// This cluster's API.
    pub client: Client,
    /// Namespace of the installation.
    pub namespace: String,
    /// The snapshot.
    pub world: Arc<World>,
    /// The Links, for the supervisor and the status; `None` until they were listed.
    pub links: watch::Sender<Option<Links>>,
    /// The gateway pods.
    pub gateways: Arc<Gateways>,
    /// Told when each first list is there.
    pub readiness: Readiness,
    /// Where broken watches are counted.
    pub watches: Arc<Watches>,
}

impl Local {
    /// Watches the Links, for ever.
    pub async fn links(self) {
        let ready = self.readiness.register("links", "the first list of Links");
        let api = Api::<Link>::namespaced(self.client.clone(), &self.namespace);
        let keep = |mut link: Link| {
            link.metadata.managed_fields = None;
            Some(link)
        };
        follow(api, Scope::default().counted(&self.watches, "links"), keep, |seen| match seen {
            Seen::All(all) => {
                let all: Vec<Link> =
                    all.into_iter().filter(|l| l.metadata.deletion_timestamp.is_none()).collect();
                self.world.change(|s| s.links_reset(all.iter().map(LinkView::from).collect()));
                self.links.send_replace(Some(all.into_iter().map(|l| (l.name_any(), l)).collect()));
                ready.ready();
            }
            // No finalizer of ours waits on a Link; one that is being deleted counts as gone.
            Seen::Now(link) if link.metadata.deletion_timestamp.is_none() => {
                self.world.change(|s| s.link_seen(LinkView::from(&link)));
                self.links.send_modify(|links| {
                    links.get_or_insert_default().insert(link.name_any(), link);
                });
            }
            Seen::Now(link) | Seen::Gone(link) => {
                let name = link.name_any();
                self.world.change(|s| s.link_gone(&name));
                self.links.send_modify(|links| {
                    links.get_or_insert_default().remove(&name);
                });
            }
            Seen::Begins => {}
            Seen::Up => self.world.watched("Links", None),
            Seen::Lost(lost) => self.world.watched("Links", Some(lost)),
        })
        .await;
    }

    /// Watches the namespaces' names, for ever.
    pub async fn namespaces(self) {
        let ready = self.readiness.register("namespaces", "the first list of namespaces");
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        let keep =
            |n: PartialObjectMeta<Namespace>| Some((n.name_any(), n.metadata.deletion_timestamp.is_none()));
        follow(api, Scope::default().counted(&self.watches, "namespaces"), keep, |seen| match seen {
            Seen::All(all) => {
                let live = all.into_iter().filter(|(_, live)| *live);
                self.world.change(|s| s.namespaces_reset(live.map(|(name, _)| name)));
                ready.ready();
            }
            Seen::Now((name, true)) => self.world.change(|s| s.namespace_seen(&name)),
            Seen::Now((name, false)) | Seen::Gone((name, _)) => {
                self.world.change(|s| s.namespace_gone(&name));
            }
            Seen::Begins => {}
            Seen::Up => self.world.watched("namespaces", None),
            Seen::Lost(lost) => self.world.watched("namespaces", Some(lost)),
        })
        .await;
    }

    /// Watches the Services that carry the mirror label, for ever.
    pub async fn services(self) {
        let ready = self.readiness.register("mirrors", "the first list of mirrored Services");
        let scope = Scope::labels(format!("{MIRRORED_SERVICE}=true")).counted(&self.watches, "mirrors");
        let keep = |service: Service| Some((Key::of(&service), StandingService::of(service)));
        follow(Api::<Service>::all(self.client.clone()), scope, keep, |seen| match seen {
            Seen::All(all) => {
                self.world.change(|s| s.services_reset(all));
                ready.ready();
            }
            Seen::Now((key, service)) => self.world.change(|s| s.service_seen(&key, service)),
            Seen::Gone((key, service)) => self.world.change(|s| s.service_gone(&key, &service.state)),
            Seen::Begins => {}
            Seen::Up => self.world.watched("mirrors", None),
            Seen::Lost(lost) => self.world.watched("mirrors", Some(lost)),
        })
        .await;
    }

    /// Watches our slices, for ever; those of a TrafficSplit's apex are another's.
    pub async fn slices(self) {
        let ready = self.readiness.register("slices", "the first list of our EndpointSlices");
        let scope = Scope::labels(format!("{SLICE_MANAGED_BY}={MANAGED_BY},!{SPLIT}"));
        let scope = scope.counted(&self.watches, "slices");
        let keep = |slice: EndpointSlice| Some(StandingSlice::of(&slice));
        follow(Api::<EndpointSlice>::all(self.client.clone()), scope, keep, |seen| match seen {
            Seen::All(all) => {
                self.world.change(|s| s.slices_reset(all));
                ready.ready();
            }
            Seen::Now((home, slice)) => self.world.change(|s| s.slice_seen(&home, slice)),
            Seen::Gone((home, slice)) => {
                self.world.change(|s| s.slice_gone(&home, &slice.name, &slice.state));
            }
            Seen::Begins => {}
            Seen::Up => self.world.watched("our EndpointSlices", None),
            Seen::Lost(lost) => self.world.watched("our EndpointSlices", Some(lost)),
        })
        .await;
    }

    /// Watches where the gateway pods are, for ever.
    pub async fn gateway_places(self) {
        let ready = self.readiness.register("gateways", "the first list of gateway pods");
        let scope =
            Scope::labels(format!("{SLICE_SERVICE_NAME}={GATEWAY}")).counted(&self.watches, "gateways");
        let api = Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace);
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        follow(api, scope, Some, |seen| {
            match seen {
                Seen::All(all) => {
                    slices = all.into_iter().map(|s| (s.name_any(), s)).collect();
                    ready.ready();
                }
                Seen::Now(slice) => {
                    slices.insert(slice.name_any(), slice);
                }
                Seen::Gone(slice) => {
                    slices.remove(&slice.name_any());
                }
                Seen::Begins => return,
                Seen::Up => return self.world.watched("gateway pods", None),
                Seen::Lost(lost) => return self.world.watched("gateway pods", Some(lost)),
            }
            self.gateways.place(places(slices.values()));
        })
        .await;
    }
}
