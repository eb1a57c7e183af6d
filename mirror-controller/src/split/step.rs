//! The next writes at one apex: from what stands to what is wanted, in an order in which no request is lost. Pure; time is
//! passed in.

use crate::{
    desired::Mirror,
    diff::{Change, Seen, diff, diff_slices as diff_standing},
    gateways::table::GatewayPod,
    liveness,
    snapshot::{
        Key,
        standing::{StandingService, StandingSlice, State},
    },
    split::{
        contest::Contest,
        decide::Wanted,
        objects::{carries, closed, route, shadow, slices, takes_traffic},
        table::{Slices, has_key, is_labelled},
    },
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use linkspan_core::api::{names::Target, split::shadow_name};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::Instant;

/// No gateway pod is ready for so long: the key is taken away.
const UNSERVED: Duration = Duration::from_secs(3);
/// From when nobody is sent to the gateways until our slices go: kube-proxies and clients that are about to connect.
const CLOSED: Duration = Duration::from_secs(5);
/// How long Kubernetes may take to fill the apex's slices again where that cannot be seen.
const REFILL: Duration = Duration::from_secs(3);

/// Everything around one apex.
pub struct Scene<'a> {
    /// The apex.
    pub key: &'a Key,
    /// Its Service, if it exists.
    pub apex: Option<&'a Service>,
    /// What it should be, with the gateway's ports; `None`: as if no split had been.
    pub wanted: Option<(&'a Wanted, &'a BTreeMap<Target, u16>)>,
    /// Its shadow.
    pub shadow: Option<&'a Service>,
    /// The slices around it.
    pub around: Slices<'a>,
    /// This cluster's gateway pods.
    pub pods: &'a BTreeMap<String, GatewayPod>,
}

/// What must be remembered of an apex from one look to the next.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    /// Who drops our key.
    pub contest: Contest,
    unserved: Option<Instant>,
    released: Option<Instant>,
    closed: Option<Instant>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// A Service or slice of ours.
    Change(Change),
    /// Our key and label onto the apex.
    Take,
    /// Our key off the apex's selector.
    Release,
    /// Our label off the apex.
    Unlabel,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The gateways share out the traffic.
    Active,
    /// On the way there; what is waited for.
    TakingOver(&'static str),
    /// No gateway pod is ready: the apex's own pods serve.
    NoGateway,
    /// On the way back.
    GivingBack,
    /// Nothing of ours is left.
    Gone,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    /// The writes, in this order.
    pub steps: Vec<Step>,
    /// How far it is.
    pub stage: Stage,
    /// When to look again, if nothing changes before.
    pub again: Option<Instant>,
    /// Somebody dropped our key, for the first time since long.
    pub dropped: bool,
}

impl Next {
    fn new(stage: Stage, steps: Vec<Step>) -> Self {
        Self { steps, stage, again: None, dropped: false }
    }

    fn waiting(stage: Stage, until: Instant) -> Self {
        Self { again: Some(until), ..Self::new(stage, Vec::new()) }
    }
}

/// What to do at one apex.
pub fn next(scene: &Scene<'_>, memo: &mut Memo, now: Instant) -> Next {
    let Some(apex) = scene.apex else { return clear(scene) };
    match scene.wanted {
        Some((wanted, assigned)) => {
            (memo.released, memo.closed) = (None, None);
            let dropped = memo.contest.seen(has_key(apex), now);
            let next = take_over(scene, apex, wanted, assigned, memo, now);
            Next { dropped, ..next }
        }
        None => give_back(scene, apex, memo, now),
    }
}

/// `object` as it was seen.
fn seen(object: &impl kube::ResourceExt) -> Seen {
    Seen::new(Key::of(object), &State::of(object))
}

fn diff_slices(key: &Key, desired: &[EndpointSlice], standing: &[&EndpointSlice]) -> Vec<Change> {
    let standing: Vec<StandingSlice> = standing.iter().map(|slice| StandingSlice::of(slice).1).collect();
    diff_standing(key, desired, &standing)
}

/// The apex is gone: what is left of ours goes too, also where Kubernetes would collect it.
fn clear(scene: &Scene<'_>) -> Next {
    let slices = scene.around.ours.iter().map(|slice| Change::DeleteSlice(seen(*slice)));
    let shadow = scene.shadow.map(|shadow| Change::DeleteService(seen(shadow)));
    let steps: Vec<Step> = slices.chain(shadow).map(Step::Change).collect();
    Next::new(if steps.is_empty() { Stage::Gone } else { Stage::GivingBack }, steps)
}

fn take_over(
    scene: &Scene<'_>,
    apex: &Service,
    wanted: &Wanted,
    assigned: &BTreeMap<Target, u16>,
    memo: &mut Memo,
    now: Instant,
) -> Next {
    let mirror = Mirror { service: shadow(scene.key, apex), slices: Vec::new() };
    let standing = scene.shadow.cloned().map(StandingService::of);
    let shadow_key = Key::new(&scene.key.namespace, shadow_name(&scene.key.name));
    let changes = diff(&shadow_key, Some(&mirror), standing.as_ref(), &[]);
    let shadow: Vec<Step> = changes.into_iter().map(Step::Change).collect();
    let on_the_way = |waits| if has_key(apex) { Stage::Active } else { Stage::TakingOver(waits) };
    if !shadow.is_empty() {
        return Next::new(on_the_way("its shadow is made"), shadow);
    }
    if scene.around.shadow.is_empty() {
        return Next::new(on_the_way("Kubernetes lists its pods under its shadow"), Vec::new());
    }
    let route = route(scene.key, wanted, assigned);
    let desired = slices(scene.key, apex, &route, scene.pods, &scene.around);
    let changes = diff_slices(scene.key, &desired, &scene.around.ours);
    let steps: Vec<Step> = changes.into_iter().map(Step::Change).collect();
    let served = desired.iter().flat_map(|slice| &slice.endpoints).any(takes_traffic);
    if served {
        memo.unserved = None;
    }
    match (has_key(apex), served) {
        (true, true) => Next::new(Stage::Active, steps),
        (true, false) => {
            // The slices say it already, and Kubernetes uses the apex's own pods; the key follows if it stays so.
            let until = *memo.unserved.get_or_insert(now) + UNSERVED;
            let mut next = Next { again: Some(until), ..Next::new(Stage::NoGateway, steps) };
            if now >= until {
                next.steps.push(Step::Release);
                next.again = None;
                memo.contest.released();
            }
            next
        }
        // Given back since no gateway is left, which is what there is to tell until one is.
        (false, false) if memo.unserved.is_some() => Next::new(Stage::NoGateway, steps),
        (false, false) => Next::new(Stage::TakingOver("gateway pods listen for it"), steps),
        (false, true) if !steps.is_empty() => Next::new(Stage::TakingOver("gateway pods are listed"), steps),
        (false, true) => match memo.contest.not_before().filter(|at| *at > now) {
            Some(at) => Next::waiting(Stage::TakingOver("its selector is contested"), at),
            None => Next::new(Stage::TakingOver("its selector is changed"), vec![Step::Take]),
        },
    }
}

fn give_back(scene: &Scene<'_>, apex: &Service, memo: &mut Memo, now: Instant) -> Next {
    if has_key(apex) {
        memo.contest.released();
        let mut steps = refreshed(scene);
        steps.push(Step::Release);
        return Next::new(Stage::GivingBack, steps);
    }
    if scene.around.ours.is_empty() {
        return finish(scene, apex, memo);
    }
    let released = *memo.released.get_or_insert(now);
    if !is_refilled(scene, apex) && now < released + REFILL {
        let again = Some(released + REFILL);
        return Next { again, ..Next::new(Stage::GivingBack, refreshed(scene)) };
    }
    // Nobody is sent to the gateways any more; they still serve who is on the way.
    let gateways = scene.around.ours.iter().filter(|slice| leads_to_gateways(slice));
    let desired: Vec<EndpointSlice> = gateways.map(|slice| closed(slice)).collect();
    let standing: Vec<&EndpointSlice> =
        scene.around.ours.iter().copied().filter(|slice| leads_to_gateways(slice)).collect();
    let changes: Vec<Step> =
        diff_slices(scene.key, &desired, &standing).into_iter().map(Step::Change).collect();
    if !changes.is_empty() {
        memo.closed = None;
        return Next::new(Stage::GivingBack, changes);
    }
    let until = *memo.closed.get_or_insert(now) + CLOSED;
    if now < until {
        return Next::waiting(Stage::GivingBack, until);
    }
    let gone = scene.around.ours.iter().map(|slice| Step::Change(Change::DeleteSlice(seen(*slice))));
    Next::new(Stage::GivingBack, gone.collect())
}

/// While gateways still serve the apex, those that died must not be used.
fn refreshed(scene: &Scene<'_>) -> Vec<Step> {
    let standing: Vec<&EndpointSlice> =
        scene.around.ours.iter().copied().filter(|slice| leads_to_gateways(slice)).collect();
    let fresh = |slice: &&EndpointSlice| {
        let ports = slice.ports.iter().flatten().filter_map(|p| u16::try_from(p.port?).ok());
        let needed: BTreeSet<u16> = ports.collect();
        let family = slice.address_type.as_str();
        let endpoints = liveness::endpoints(scene.pods, family, |pod, blind| carries(pod, &needed, blind));
        EndpointSlice { endpoints, ..(*slice).clone() }
    };
    let desired: Vec<EndpointSlice> = standing.iter().map(fresh).collect();
    diff_slices(scene.key, &desired, &standing).into_iter().map(Step::Change).collect()
}

fn finish(scene: &Scene<'_>, apex: &Service, memo: &mut Memo) -> Next {
    *memo = Memo::default();
    if let Some(shadow) = scene.shadow {
        return Next::new(Stage::GivingBack, vec![Step::Change(Change::DeleteService(seen(shadow)))]);
    }
    if is_labelled(apex) {
        return Next::new(Stage::GivingBack, vec![Step::Unlabel]);
    }
    Next::new(Stage::Gone, Vec::new())
}

/// Whether Kubernetes' own slices of the apex list its pods again, as far as there are any.
fn is_refilled(scene: &Scene<'_>, apex: &Service) -> bool {
    let serves = |slices: &[&EndpointSlice]| slices.iter().flat_map(|s| &s.endpoints).any(takes_traffic);
    is_labelled(apex) && (serves(&scene.around.own) || !serves(&scene.around.shadow))
}

fn leads_to_gateways(slice: &EndpointSlice) -> bool {
    use linkspan_core::api::labels::SPLIT_ROUTE;
    slice.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SPLIT_ROUTE))
}
