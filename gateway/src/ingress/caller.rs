//! Who calls, as the calling cluster says in OPEN: W3C baggage with OpenTelemetry's keys. Pure.
//!
//! It is that cluster's word, and what cannot be read for certain is unknown: no guess is made, and a rule never
//! matches what is unknown. Only names that Kubernetes could have given are kept, so that nothing else reaches logs.

use std::fmt;

/// Longest name Kubernetes gives.
const MAX_NAME: usize = 253;

/// Who calls; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// Uid of the caller's cluster.
    pub cluster: Option<String>,
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// ServiceAccount of the pod.
    pub service_account: Option<String>,
    /// The pod.
    pub pod: Option<String>,
}

impl Caller {
    /// Reads `baggage`. A text that names something twice, or anything but names, is of an unknown caller.
    pub fn parse(baggage: &str) -> Self {
        let mut caller = Self::default();
        for member in baggage.split(',') {
            // What follows a semicolon is the member's properties.
            let member = member.split(';').next().unwrap_or_default();
            let Some((key, value)) = member.split_once('=') else { continue };
            let field = match key.trim_matches([' ', '\t']) {
                "k8s.cluster.uid" => &mut caller.cluster,
                "k8s.namespace.name" => &mut caller.namespace,
                "k8s.serviceaccount.name" => &mut caller.service_account,
                "k8s.pod.name" => &mut caller.pod,
                _ => continue,
            };
            let value = value.trim_matches([' ', '\t']);
            if field.is_some() || !is_name(value) {
                return Self::default();
            }
            *field = Some(value.to_owned());
        }
        caller
    }
}

/// Whether `text` may be a name or a uid in Kubernetes.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty()
        && text.len() <= MAX_NAME
        && text.bytes().all(inner)
        && !text.starts_with(['-', '.'])
        && !text.ends_with(['-', '.'])
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |part: &Option<String>| part.clone().unwrap_or_else(|| "unknown".to_owned());
        if *self == Self::default() {
            return f.write_str("unknown");
        }
        let (pod, account) = (shown(&self.pod), shown(&self.service_account));
        write!(f, "{}/{} ({}) of {}", shown(&self.namespace), pod, account, shown(&self.cluster))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::pod_table::{PodRow, PodTable};
    use proptest::prelude::*;

    #[test]
    fn what_egress_writes_is_read() {
        let mut pods = PodTable::default();
        let row = PodRow { service_account: "web".to_owned(), ips: vec![[10, 0, 0, 1].into()] };
        pods.set("shop", "web-1", Some(row));
        let caller = Caller::parse(&pods.baggage([10, 0, 0, 1].into(), "6f1a-22.linkspan"));
        assert_eq!(caller.to_string(), "shop/web-1 (web) of 6f1a-22");
        let nobody = Caller::parse(&pods.baggage([10, 0, 0, 2].into(), "u.linkspan"));
        assert_eq!(nobody, Caller::default());
        assert_eq!(nobody.to_string(), "unknown");
    }

    #[test]
    fn properties_and_foreign_members_are_passed_over() {
        let caller = Caller::parse("a=b, k8s.namespace.name = shop;ttl=1;x , nonsense,,trace=%20");
        assert_eq!(caller, Caller { namespace: Some("shop".to_owned()), ..Caller::default() });
    }

    #[test]
    fn what_is_ambiguous_or_no_name_is_unknown() {
        for text in [
            "k8s.namespace.name=shop,k8s.namespace.name=admin",
            "k8s.namespace.name=shop,k8s.namespace.name=shop",
            "k8s.namespace.name=Shop",
            "k8s.namespace.name=",
            "k8s.namespace.name=shop%2Dx",
            "k8s.namespace.name=shop\n",
            "k8s.namespace.name=shop\0",
            "k8s.namespace.name=sh\u{f6}p",
            "k8s.pod.name=web-1,k8s.namespace.name=../kube-system",
        ] {
            assert_eq!(Caller::parse(text), Caller::default(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_shown_in_plain_letters(text in ".{0,300}") {
            prop_assert!(Caller::parse(&text).to_string().is_ascii());
        }
    }
}
