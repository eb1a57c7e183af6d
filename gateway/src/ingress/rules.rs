//! Rules on who may call what, beyond what is exported. Pure. No source gives any yet: what is exported may be called
//! by every linked cluster.
//!
//! A denying rule that matches wins. Where allowing rules name a target, one of them must match. What a rule asks of
//! the caller never matches what is unknown: whoever is to be kept out by name is kept out by allowing the others.

use crate::ingress::caller::Caller;
use linkspan_core::api::names::Target;

/// Whether matching flows may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They may.
    Allow,
    /// They may not.
    Deny,
}

/// One rule. What is `None` matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it does.
    pub effect: Effect,
    /// Namespace of the called Service.
    pub to_namespace: Option<String>,
    /// The called Service.
    pub to_service: Option<String>,
    /// The link's account.
    pub account: Option<String>,
    /// Namespace of the caller, as its cluster says.
    pub namespace: Option<String>,
    /// ServiceAccount of the caller, as its cluster says.
    pub service_account: Option<String>,
}

impl Rule {
    fn covers(&self, target: &Target) -> bool {
        self.to_namespace.as_ref().is_none_or(|wanted| *wanted == target.namespace)
            && self.to_service.as_ref().is_none_or(|wanted| *wanted == target.service)
    }

    fn matches(&self, account: &str, caller: &Caller) -> bool {
        let known = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        self.account.as_deref().is_none_or(|wanted| wanted == account)
            && known(&self.namespace, &caller.namespace)
            && known(&self.service_account, &caller.service_account)
    }
}

/// Whether `rules` let `caller`, who comes by `account`, call `target`.
pub fn permit(rules: &[Rule], account: &str, caller: &Caller, target: &Target) -> bool {
    let (mut asked, mut allowed) = (false, false);
    for rule in rules.iter().filter(|rule| rule.covers(target)) {
        let matches = rule.matches(account, caller);
        match rule.effect {
            Effect::Deny if matches => return false,
            Effect::Deny => {}
            Effect::Allow => {
                asked = true;
                allowed |= matches;
            }
        }
    }
    allowed || !asked
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn any_rule() -> impl Strategy<Value = Rule> {
        let part = || proptest::option::of("[ab]");
        let effect = prop_oneof![Just(Effect::Allow), Just(Effect::Deny)];
        (effect, part(), part(), part(), part(), part()).prop_map(
            |(effect, to_namespace, to_service, account, namespace, service_account)| Rule {
                effect,
                to_namespace,
                to_service,
                account,
                namespace,
                service_account,
            },
        )
    }

    pub(crate) fn any_caller() -> impl Strategy<Value = Caller> {
        let part = || proptest::option::of("[ab]");
        (part(), part()).prop_map(|(namespace, service_account)| Caller {
            namespace,
            service_account,
            ..Caller::default()
        })
    }

    proptest! {
        #[test]
        fn a_deny_never_allows_and_wherever_it_stands_it_wins(
            mut rules in prop::collection::vec(any_rule(), 0..5), deny in any_rule(), at: prop::sample::Index,
            caller in any_caller(), account in "[ab]", target in "[ab]\\.[ab]:1",
        ) {
            let target = target.parse().unwrap();
            let before = permit(&rules, &account, &caller, &target);
            let deny = Rule { effect: Effect::Deny, ..deny };
            let hits = deny.covers(&target) && deny.matches(&account, &caller);
            rules.insert(at.index(rules.len() + 1), deny);
            prop_assert_eq!(permit(&rules, &account, &caller, &target), before && !hits);
        }

        #[test]
        fn a_rule_on_names_never_matches_the_unknown(rule in any_rule(), account in "[ab]") {
            if rule.namespace.is_some() || rule.service_account.is_some() {
                prop_assert!(!rule.matches(&account, &Caller::default()));
            }
        }

        #[test]
        fn who_is_unknown_gets_what_any_caller_gets_at_most(
            rules in prop::collection::vec(any_rule(), 0..5), account in "[ab]", target in "[ab]\\.[ab]:1",
        ) {
            let allowing: Vec<Rule> = rules.into_iter().filter(|rule| rule.effect == Effect::Allow).collect();
            let (target, nobody) = (target.parse().unwrap(), Caller::default());
            if permit(&allowing, &account, &nobody, &target) {
                let somebody = Caller {
                    namespace: Some("b".to_owned()), service_account: Some("b".to_owned()), ..Caller::default()
                };
                prop_assert!(permit(&allowing, &account, &somebody, &target));
            }
        }
    }

    #[test]
    fn without_rules_all_may() {
        assert!(permit(&[], "east", &Caller::default(), &"a.b:1".parse().unwrap()));
    }
}
