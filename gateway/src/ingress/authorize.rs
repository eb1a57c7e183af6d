//! Who may do what. Pure, and asked again for live flows whenever an answer may have changed.

use crate::{
    ingress::{
        account_table::AccountTable,
        caller::Caller,
        rules::{Rule, permit},
        service_table::ServiceTable,
    },
    mtls::peer::Peer,
};
use linkspan_core::api::{names::Target, reason::Reason};
use std::collections::BTreeSet;

/// Most links a flow may cross.
const MAX_HOPS: u8 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Who proved to be at the other end of the tunnel.
    pub peer: &'a Peer,
    /// Who calls, as that peer says.
    pub caller: &'a Caller,
    /// What it wants to reach.
    pub target: &'a Target,
    /// How many links the flow crosses, this one included.
    pub hops: u8,
}

/// Everything an answer depends on, apart from the question.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// Namespace whose accounts linked clusters sign in with.
    pub namespace: &'a str,
    /// Live accounts in it.
    pub accounts: &'a AccountTable,
    /// Serial numbers of certificates that are denied.
    pub denied: &'a BTreeSet<String>,
    /// What is exported.
    pub services: &'a ServiceTable,
    /// What else is asked of callers.
    pub rules: &'a [Rule],
}

/// Whether `peer` may use this gateway at all. That the certificate is of our own trust domain was checked in the
/// handshake.
///
/// # Errors
/// Why not.
pub fn authorize_peer(
    peer: &Peer,
    namespace: &str,
    accounts: &AccountTable,
    denied: &BTreeSet<String>,
) -> Result<(), Reason> {
    let live = accounts.uid(&peer.identity.service_account);
    let same = live.is_some() && live == peer.uid.as_deref();
    if same && !denied.contains(&peer.serial) && peer.identity.namespace == namespace {
        Ok(())
    } else {
        Err(Reason::Identity)
    }
}

/// Whether the flow `question` may go on.
///
/// # Errors
/// Why not: the first of these that holds. Nothing is allowed unless the peer's account lives and the target is
/// exported.
pub fn authorize(question: &Question<'_>, policy: &Policy<'_>) -> Result<(), Reason> {
    let Question { peer, caller, target, hops } = *question;
    authorize_peer(peer, policy.namespace, policy.accounts, policy.denied)?;
    if hops > MAX_HOPS {
        return Err(Reason::Policy);
    }
    if !policy.services.is_exported(target) {
        return Err(Reason::NotExported);
    }
    if permit(policy.rules, &peer.identity.service_account, caller, target) {
        Ok(())
    } else {
        Err(Reason::Policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::{
        rules::{
            Effect,
            tests::{any_caller, any_rule},
        },
        service_table::{ServicePort, ServiceRow},
    };
    use proptest::prelude::*;

    fn peer(account: &str, uid: Option<&str>) -> Peer {
        Peer {
            identity: format!("spiffe://west.linkspan/ns/linkspan/sa/{account}").parse().unwrap(),
            uid: uid.map(str::to_owned),
            serial: "ab".to_owned(),
            not_after: jiff::Timestamp::MAX,
        }
    }

    fn services() -> ServiceTable {
        let mut services = ServiceTable::default();
        let port = ServicePort { name: String::new(), port: 8080 };
        services.set_service(
            "default",
            "api",
            Some(ServiceRow { ports: vec![port], ..ServiceRow::default() }),
        );
        services
    }

    fn ask_with(
        peer: &Peer,
        caller: &Caller,
        target: &str,
        hops: u8,
        accounts: &AccountTable,
        denied: &[&str],
        rules: &[Rule],
    ) -> Result<(), Reason> {
        let (target, services) = (target.parse().unwrap(), services());
        let denied = denied.iter().map(|s| (*s).to_owned()).collect();
        let policy = Policy { namespace: "linkspan", accounts, denied: &denied, services: &services, rules };
        authorize(&Question { peer, caller, target: &target, hops }, &policy)
    }

    fn ask(
        peer: &Peer,
        target: &str,
        hops: u8,
        accounts: &AccountTable,
        denied: &[&str],
    ) -> Result<(), Reason> {
        ask_with(peer, &Caller::default(), target, hops, accounts, denied, &[])
    }

    #[test]
    fn each_denial_has_its_reason() {
        let mut accounts = AccountTable::default();
        accounts.set("east", "u1");
        let east = peer("east", Some("u1"));
        let api = "api.default:8080";
        assert_eq!(ask(&east, api, 1, &accounts, &[]), Ok(()));
        assert_eq!(ask(&east, api, 2, &accounts, &[]), Err(Reason::Policy));
        assert_eq!(ask(&east, "api.default:8081", 1, &accounts, &[]), Err(Reason::NotExported));
        assert_eq!(ask(&east, "api.other:8080", 1, &accounts, &[]), Err(Reason::NotExported));
        assert_eq!(ask(&east, api, 1, &accounts, &["ab"]), Err(Reason::Identity));
        assert_eq!(
            ask(&peer("east", Some("u2")), api, 1, &accounts, &[]),
            Err(Reason::Identity),
            "made anew"
        );
        assert_eq!(ask(&peer("east", None), api, 1, &accounts, &[]), Err(Reason::Identity));
        assert_eq!(ask(&peer("north", Some("u1")), api, 1, &accounts, &[]), Err(Reason::Identity));
        accounts.remove("east");
        assert_eq!(ask(&east, api, 1, &accounts, &[]), Err(Reason::Identity), "deleted");
        let mut elsewhere = east;
        accounts.set("east", "u1");
        elsewhere.identity.namespace = "default".to_owned();
        assert_eq!(ask(&elsewhere, api, 1, &accounts, &[]), Err(Reason::Identity));
    }

    #[test]
    fn rules_narrow_what_is_exported() {
        let mut accounts = AccountTable::default();
        accounts.set("east", "u1");
        let east = peer("east", Some("u1"));
        let rule = Rule {
            effect: Effect::Allow,
            to_namespace: Some("default".to_owned()),
            to_service: None,
            account: None,
            namespace: Some("shop".to_owned()),
            service_account: None,
        };
        let ask = |caller: &Caller| {
            ask_with(&east, caller, "api.default:8080", 1, &accounts, &[], std::slice::from_ref(&rule))
        };
        let shop = Caller { namespace: Some("shop".to_owned()), ..Caller::default() };
        assert_eq!(ask(&shop), Ok(()));
        assert_eq!(ask(&Caller::default()), Err(Reason::Policy));
    }

    proptest! {
        #[test]
        fn nothing_is_allowed_by_default_and_a_denial_never_allows_more(
            account in "[a-c]", uid in proptest::option::of("[u-w]"), live in "[a-c]", live_uid in "[u-w]",
            hops in 0u8..3, denied: bool, port in 8079u16..8082,
        ) {
            let mut accounts = AccountTable::default();
            let who = peer(&account, uid.as_deref());
            let target = format!("api.default:{port}");
            prop_assert!(ask(&who, &target, hops, &accounts, &[]).is_err());
            accounts.set(&live, &live_uid);
            let open = ask(&who, &target, hops, &accounts, &[]);
            let closed = ask(&who, &target, hops, &accounts, if denied { &["ab"] } else { &[] });
            prop_assert!(closed.is_err() || open.is_ok());
            if open.is_ok() {
                prop_assert!(account == live && uid.as_deref() == Some(live_uid.as_str()) && port == 8080 && hops < 2);
                prop_assert!(closed.is_ok() != denied);
            }
        }

        #[test]
        fn rules_never_allow_what_is_not_exported_or_nobody_may(
            rules in prop::collection::vec(any_rule(), 0..5), caller in any_caller(), port in 8079u16..8082,
            account in "[a-b]", hops in 0u8..3,
        ) {
            let mut accounts = AccountTable::default();
            accounts.set("a", "u");
            let (who, target) = (peer(&account, Some("u")), format!("api.default:{port}"));
            let without = ask_with(&who, &caller, &target, hops, &accounts, &[], &[]);
            let with = ask_with(&who, &caller, &target, hops, &accounts, &[], &rules);
            prop_assert!(with.is_err() || without.is_ok());
            prop_assert!(without.is_ok() || with == without, "the reason is the same");
        }
    }
}
