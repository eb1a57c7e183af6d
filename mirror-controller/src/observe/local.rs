//! This cluster's side: Links, namespaces, mirrors, slices, and where the gateway pods are.

use crate::{
    gateways::{Gateways, places},
    link::view::LinkView,
    observe::watch::{Scope, Seen, follow},
    world::World,
};
use k8s_openapi::api::{
    core::v1::{Namespace, Service},
    discovery::v1::EndpointSlice,
};
use kube::{Api, Client, ResourceExt, core::PartialObjectMeta};
use linkspan_core::{
    api::{
        labels::{GATEWAY, MANAGED_BY, MIRRORED_SERVICE, SLICE_MANAGED_BY, SLICE_SERVICE_NAME},
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
}

impl Local {
    /// Watches the Links, for ever.
    pub async fn links(self) {
        let ready = self.readiness.register("links", "the first list of Links");
        follow(Api::<Link>::namespaced(self.client.clone(), &self.namespace), Scope::default(), |seen| {
            match seen {
                Seen::All(all) => {
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
                Seen::Up => {}
                Seen::Lost(lost) => {
                    tracing::warn!(reason = lost.reason, error = lost.message, "Links cannot be watched");
                }
            }
        })
        .await;
    }

    /// Watches the namespaces' names, for ever.
    pub async fn namespaces(self) {
        let ready = self.readiness.register("namespaces", "the first list of namespaces");
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.client.clone());
        follow(api, Scope::default(), |seen| match seen {
            Seen::All(all) => {
                let live = all.iter().filter(|n| n.metadata.deletion_timestamp.is_none());
                let names: Vec<String> = live.map(ResourceExt::name_any).collect();
                self.world.change(|s| s.namespaces_reset(names));
                ready.ready();
            }
            Seen::Now(n) if n.metadata.deletion_timestamp.is_none() => {
                self.world.change(|s| s.namespace_seen(&n.name_any()));
            }
            Seen::Now(n) | Seen::Gone(n) => self.world.change(|s| s.namespace_gone(&n.name_any())),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(reason = lost.reason, error = lost.message, "namespaces cannot be watched");
            }
        })
        .await;
    }

    /// Watches the Services that carry the mirror label, for ever.
    pub async fn services(self) {
        let ready = self.readiness.register("mirrors", "the first list of mirrored Services");
        let scope = Scope::labels(format!("{MIRRORED_SERVICE}=true"));
        follow(Api::<Service>::all(self.client.clone()), scope, |seen| match seen {
            Seen::All(all) => {
                self.world.change(|s| s.services_reset(all.into_iter().map(trimmed_service).collect()));
                ready.ready();
            }
            Seen::Now(service) => self.world.change(|s| s.service_seen(trimmed_service(service))),
            Seen::Gone(service) => self.world.change(|s| s.service_gone(&service)),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(reason = lost.reason, error = lost.message, "mirrors cannot be watched");
            }
        })
        .await;
    }

    /// Watches our slices, for ever.
    pub async fn slices(self) {
        let ready = self.readiness.register("slices", "the first list of our EndpointSlices");
        let scope = Scope::labels(format!("{SLICE_MANAGED_BY}={MANAGED_BY}"));
        follow(Api::<EndpointSlice>::all(self.client.clone()), scope, |seen| match seen {
            Seen::All(all) => {
                self.world.change(|s| s.slices_reset(all.into_iter().map(trimmed_slice).collect()));
                ready.ready();
            }
            Seen::Now(slice) => self.world.change(|s| s.slice_seen(trimmed_slice(slice))),
            Seen::Gone(slice) => self.world.change(|s| s.slice_gone(&slice)),
            Seen::Up => {}
            Seen::Lost(lost) => {
                tracing::warn!(reason = lost.reason, error = lost.message, "our slices cannot be watched");
            }
        })
        .await;
    }

    /// Watches where the gateway pods are, for ever.
    pub async fn gateway_places(self) {
        let ready = self.readiness.register("gateways", "the first list of gateway pods");
        let scope = Scope::labels(format!("{SLICE_SERVICE_NAME}={GATEWAY}"));
        let mut slices: BTreeMap<String, EndpointSlice> = BTreeMap::new();
        follow(Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace), scope, |seen| {
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
                Seen::Up => return,
                Seen::Lost(lost) => {
                    tracing::warn!(
                        reason = lost.reason,
                        error = lost.message,
                        "gateway pods cannot be watched"
                    );
                    return;
                }
            }
            self.gateways.place(places(slices.values()));
        })
        .await;
    }
}

/// `service` without what nobody here reads.
pub fn trimmed_service(mut service: Service) -> Service {
    service.metadata.managed_fields = None;
    service.status = None;
    service
}

/// `slice` without what nobody here reads.
pub fn trimmed_slice(mut slice: EndpointSlice) -> EndpointSlice {
    slice.metadata.managed_fields = None;
    slice
}
