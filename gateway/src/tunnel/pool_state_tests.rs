//! The pool's decisions, with values and by properties.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 4143))
}

fn peer(epoch: u64, addresses: &[u8]) -> Event {
    Event::Peer { epoch, addresses: addresses.iter().map(|n| address(*n)).collect(), blocked: None }
}

fn connection(id: ConnectionId, epoch: u64, born: Instant) -> Connection {
    Connection { id, address: address(1), epoch, born, retires: born + Duration::from_secs(86_400) }
}

const TOOK: Duration = Duration::from_millis(10);

#[test]
fn two_spares_are_dialed_before_anybody_asks_and_again_after_a_lease() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits::default(), now);
    assert_eq!(pool.on(peer(1, &[1]), now, 0.5), [Action::Dial, Action::Dial]);
    assert_eq!(pool.on(Event::Dialed(connection(1, 1, now), TOOK), now, 0.5), []);
    assert_eq!(pool.on(Event::Dialed(connection(2, 1, now), TOOK), now, 0.5), []);
    assert_eq!(pool.on(Event::Lease(9), now, 0.5), [Action::Lend(2, 9), Action::Dial]);
    assert_eq!(pool.on(Event::Returned(connection(2, 1, now)), now, 0.5), []);
    assert_eq!(pool.idle(), 2);
}

#[test]
fn a_flow_fails_with_the_reason_of_the_dial_and_dials_again_at_once() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits::default(), now);
    pool.on(peer(1, &[1]), now, 0.5);
    pool.on(Event::Lease(1), now, 0.5);
    pool.on(Event::DialFailed(Reason::Refused), now, 0.5);
    pool.on(Event::DialFailed(Reason::Refused), now, 0.5);
    let last = pool.on(Event::DialFailed(Reason::Refused), now, 0.5);
    assert_eq!(last, [Action::Fail(1, Reason::Refused)], "no dial before the wait is over");
    assert_eq!(pool.on(Event::Lease(2), now, 0.5), [Action::Dial]);
    assert_eq!(pool.on(Event::Lease(3), now, 0.5), [], "one dial at a time after a failure");
    let later = now + Limits::default().patience;
    let expired = pool.on(Event::Tick, later, 0.5);
    assert!(expired.contains(&Action::Fail(2, Reason::Timeout)), "{expired:?}");
}

#[test]
fn a_dial_that_began_before_a_flow_came_does_not_fail_it() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits::default(), now);
    pool.on(peer(1, &[1]), now, 0.5);
    pool.on(Event::DialFailed(Reason::Refused), now, 0.5);
    assert_eq!(pool.on(Event::Lease(1), now, 0.5), [], "one dial is under way, and one has just failed");
    assert_eq!(pool.on(Event::DialFailed(Reason::Refused), now, 0.5), [Action::Dial]);
    assert_eq!(pool.on(Event::DialFailed(Reason::Refused), now, 0.5), [Action::Fail(1, Reason::Refused)]);
}

#[test]
fn connections_of_old_credentials_or_addresses_are_closed_and_not_taken_back() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits::default(), now);
    pool.on(peer(1, &[1]), now, 0.5);
    pool.on(Event::Dialed(connection(1, 1, now), TOOK), now, 0.5);
    let actions = pool.on(peer(2, &[1]), now, 0.5);
    assert!(actions.contains(&Action::Close(1)), "{actions:?}");
    assert!(pool.on(Event::Returned(connection(5, 1, now)), now, 0.5).contains(&Action::Close(5)));
    pool.on(Event::Dialed(connection(6, 2, now), TOOK), now, 0.5);
    assert!(pool.on(peer(2, &[2]), now, 0.5).contains(&Action::Close(6)));
}

#[test]
fn a_connection_whose_peer_expires_is_replaced_before() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits { min_spares: 1, ..Limits::default() }, now);
    pool.on(peer(1, &[1]), now, 0.5);
    let retires = now + Duration::from_secs(30);
    let first = Connection { retires, ..connection(1, 1, now) };
    assert_eq!(pool.on(Event::Dialed(first, TOOK), now, 0.5), []);
    assert_eq!(pool.wake_at(now), Some(retires));
    assert_eq!(pool.on(Event::Tick, retires, 0.5), [Action::Close(1), Action::Dial]);
    assert_eq!(pool.on(Event::Lease(9), retires, 0.5), [Action::Dial]);
    assert_eq!(pool.on(Event::Returned(first), retires, 0.5), [Action::Close(1)]);
}

#[test]
fn without_credentials_a_flow_is_told_at_once() {
    let now = Instant::now();
    let mut pool = PoolState::new(Limits::default(), now);
    assert_eq!(pool.on(Event::Lease(1), now, 0.5), [Action::Fail(1, Reason::NoCredentials)]);
}

#[test]
fn spares_follow_demand_and_go_again() {
    let mut now = Instant::now();
    let limits = Limits::default();
    let mut pool = PoolState::new(limits, now);
    let slow = Duration::from_millis(500);
    pool.on(peer(1, &[1]), now, 0.5);
    let mut next = 0;
    let mut dials = 2;
    for waiter in 0..200 {
        dials += pool.on(Event::Lease(waiter), now, 0.5).iter().filter(|a| **a == Action::Dial).count();
        while dials > 0 {
            dials -= 1;
            next += 1;
            let actions = pool.on(Event::Dialed(connection(next, 1, now), slow), now, 0.5);
            dials += actions.iter().filter(|a| **a == Action::Dial).count();
        }
    }
    assert!(pool.idle() > 10, "{}", pool.idle());
    now += limits.idle_time + Duration::from_secs(1);
    pool.on(Event::Tick, now, 0.5);
    assert_eq!(pool.idle(), limits.min_spares);
    assert!(pool.wake_at(now).unwrap() > now + limits.idle_time, "an idle pool sleeps");
}

#[derive(Clone, Debug)]
enum Step {
    Lease,
    DialOk(u64),
    DialFail,
    Return,
    Gone(usize),
    Peer(u8, bool),
    Wait(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Lease),
        4 => (0u64..10_000).prop_map(Step::DialOk),
        2 => Just(Step::DialFail),
        3 => Just(Step::Return),
        1 => (0usize..8).prop_map(Step::Gone),
        1 => (1u8..3, any::<bool>()).prop_map(|(address, new)| Step::Peer(address, new)),
        2 => (0u64..2000).prop_map(Step::Wait),
    ]
}

/// What the world around the pool knows.
struct World {
    now: Instant,
    epoch: u64,
    address: u8,
    next: u64,
    dialing: usize,
    dial_as: VecDeque<(u64, u8)>,
    idle: BTreeMap<ConnectionId, Connection>,
    lent: Vec<Connection>,
    waiting: BTreeSet<WaiterId>,
}

impl World {
    fn apply(&mut self, actions: Vec<Action>, limits: &Limits) {
        for action in actions {
            match action {
                Action::Dial => {
                    self.dialing += 1;
                    assert!(self.dialing <= limits.dials);
                    self.dial_as.push_back((self.epoch, self.address));
                }
                Action::Lend(id, waiter) => {
                    let connection = self.idle.remove(&id).expect("only idle connections are lent");
                    assert_eq!(connection.epoch, self.epoch, "lent with old credentials");
                    assert_eq!(connection.address, address(self.address), "lent to a wrong peer");
                    assert!(self.now < connection.born + limits.max_age && self.now < connection.retires);
                    assert!(self.waiting.remove(&waiter), "answered twice");
                    self.lent.push(connection);
                }
                Action::Fail(waiter, _) => assert!(self.waiting.remove(&waiter), "answered twice"),
                Action::Close(id) => assert!(self.idle.remove(&id).is_some(), "closed twice"),
            }
        }
    }
}

proptest! {
    #[test]
    fn limits_hold_and_every_waiter_is_answered(steps in prop::collection::vec(any_step(), 1..200)) {
        let limits = Limits { dials: 3, max_idle: 4, max_age: Duration::from_secs(5), ..Limits::default() };
        let start = Instant::now();
        let mut world = World {
            now: start, epoch: 1, address: 1, next: 0, dialing: 0, dial_as: VecDeque::new(),
            idle: BTreeMap::new(), lent: Vec::new(), waiting: BTreeSet::new(),
        };
        let mut pool = PoolState::new(limits, start);
        let actions = pool.on(peer(1, &[1]), start, 0.5);
        world.apply(actions, &limits);
        for step in steps {
            let event = match step {
                Step::Lease => {
                    world.next += 1;
                    world.waiting.insert(world.next);
                    Event::Lease(world.next)
                }
                Step::DialOk(lasts) if world.dialing > 0 => {
                    world.dialing -= 1;
                    world.next += 1;
                    let (epoch, to) = world.dial_as.pop_front().unwrap();
                    let retires = world.now + Duration::from_millis(lasts);
                    let made =
                        Connection { id: world.next, address: address(to), epoch, born: world.now, retires };
                    world.idle.insert(made.id, made);
                    Event::Dialed(made, TOOK)
                }
                Step::DialFail if world.dialing > 0 => {
                    world.dialing -= 1;
                    world.dial_as.pop_front();
                    Event::DialFailed(Reason::Refused)
                }
                Step::Return if !world.lent.is_empty() => {
                    let connection = world.lent.pop().unwrap();
                    world.idle.insert(connection.id, connection);
                    Event::Returned(connection)
                }
                Step::Gone(n) if !world.idle.is_empty() => {
                    let id = *world.idle.keys().nth(n % world.idle.len()).unwrap();
                    world.idle.remove(&id);
                    Event::Gone(id)
                }
                Step::Peer(to, new) => {
                    world.address = to;
                    world.epoch += u64::from(new);
                    peer(world.epoch, &[to])
                }
                Step::Wait(ms) => {
                    world.now += Duration::from_millis(ms);
                    Event::Tick
                }
                _ => Event::Tick,
            };
            let actions = pool.on(event, world.now, 0.5);
            world.apply(actions, &limits);
            prop_assert!(pool.idle() == world.idle.len());
            prop_assert!(world.waiting.is_empty() || pool.wake_at(world.now).is_some());
        }
        world.now += limits.patience;
        let actions = pool.on(Event::Tick, world.now, 0.5);
        world.apply(actions, &limits);
        prop_assert!(world.waiting.is_empty(), "every waiter is answered by its deadline");
    }
}
