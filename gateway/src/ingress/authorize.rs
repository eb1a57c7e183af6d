//! Who may do what. Pure, and asked again for live flows whenever an answer may have changed.

use crate::{
    ingress::{account_table::AccountTable, service_table::ServiceTable},
    mtls::peer::Peer,
};
use linkspan_core::api::{names::Target, reason::Reason};
use std::collections::BTreeSet;

/// Most links a flow may cross.
const MAX_HOPS: u8 = 1;

/// Everything an answer depends on, apart from the question.
pub struct Policy<'a> {
    /// Namespace whose accounts linked clusters sign in with.
    pub namespace: &'a str,
    /// Live accounts in it.
    pub accounts: &'a AccountTable,
    /// Serial numbers of certificates that are denied.
    pub denied: &'a BTreeSet<String>,
}

/// Whether `caller` may use this gateway at all. That the certificate is of our own trust domain was checked in the
/// handshake.
///
/// # Errors
/// Why not.
pub fn authorize_caller(caller: &Peer, policy: &Policy<'_>) -> Result<(), Reason> {
    let live = policy.accounts.uid(&caller.identity.service_account);
    let same = live.is_some() && live == caller.uid.as_deref();
    let denied = policy.denied.contains(&caller.serial);
    if same && !denied && caller.identity.namespace == policy.namespace {
        Ok(())
    } else {
        Err(Reason::Identity)
    }
}

/// Whether `caller` may reach `target` by a flow that crosses `hops` links.
///
/// # Errors
/// Why not.
pub fn authorize(
    caller: &Peer,
    target: &Target,
    hops: u8,
    policy: &Policy<'_>,
    services: &ServiceTable,
) -> Result<(), Reason> {
    authorize_caller(caller, policy)?;
    if hops > MAX_HOPS {
        return Err(Reason::Policy);
    }
    if services.is_exported(target) { Ok(()) } else { Err(Reason::NotExported) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::service_table::{ServicePort, ServiceRow};
    use proptest::prelude::*;

    fn caller(account: &str, uid: Option<&str>) -> Peer {
        Peer {
            identity: format!("spiffe://west.linkspan/ns/linkspan/sa/{account}").parse().unwrap(),
            uid: uid.map(str::to_owned),
            serial: "ab".to_owned(),
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

    fn ask(
        caller: &Peer,
        target: &str,
        hops: u8,
        accounts: &AccountTable,
        denied: &[&str],
    ) -> Result<(), Reason> {
        let denied = denied.iter().map(|s| (*s).to_owned()).collect();
        let policy = Policy { namespace: "linkspan", accounts, denied: &denied };
        authorize(caller, &target.parse().unwrap(), hops, &policy, &services())
    }

    #[test]
    fn each_denial_has_its_reason() {
        let mut accounts = AccountTable::default();
        accounts.set("east", "u1");
        let east = caller("east", Some("u1"));
        let api = "api.default:8080";
        assert_eq!(ask(&east, api, 1, &accounts, &[]), Ok(()));
        assert_eq!(ask(&east, api, 2, &accounts, &[]), Err(Reason::Policy));
        assert_eq!(ask(&east, "api.default:8081", 1, &accounts, &[]), Err(Reason::NotExported));
        assert_eq!(ask(&east, "api.other:8080", 1, &accounts, &[]), Err(Reason::NotExported));
        assert_eq!(ask(&east, api, 1, &accounts, &["ab"]), Err(Reason::Identity));
        assert_eq!(
            ask(&caller("east", Some("u2")), api, 1, &accounts, &[]),
            Err(Reason::Identity),
            "made anew"
        );
        assert_eq!(ask(&caller("east", None), api, 1, &accounts, &[]), Err(Reason::Identity));
        assert_eq!(ask(&caller("north", Some("u1")), api, 1, &accounts, &[]), Err(Reason::Identity));
        accounts.remove("east");
        assert_eq!(ask(&east, api, 1, &accounts, &[]), Err(Reason::Identity), "deleted");
        let mut elsewhere = east;
        accounts.set("east", "u1");
        elsewhere.identity.namespace = "default".to_owned();
        assert_eq!(ask(&elsewhere, api, 1, &accounts, &[]), Err(Reason::Identity));
    }

    proptest! {
        #[test]
        fn nothing_is_allowed_by_default_and_a_denial_never_allows_more(
            account in "[a-c]", uid in proptest::option::of("[u-w]"), live in "[a-c]", live_uid in "[u-w]",
            hops in 0u8..3, denied: bool, port in 8079u16..8082,
        ) {
            let mut accounts = AccountTable::default();
            let who = caller(&account, uid.as_deref());
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
    }
}
