//! What to do next about access to a target cluster's API. Pure.

use crate::{
    credentials::{
        finding::{Finding, link_again},
        kubeconfig::{Credentials, choose},
        token::Token,
    },
    issuer::certificate::two_thirds,
};
use jiff::{SignedDuration, Timestamp};

/// What to do about the credentials of one link.
#[derive(Clone, PartialEq, Eq)]
pub enum Step {
    /// There is nothing that works: wait for a change, and say why.
    GiveUp(Finding),
    /// Use these, and renew their token at the time given.
    Use(Box<Credentials>, Option<Timestamp>),
}

/// A kubeconfig as it lies in its Secret: absent, unreadable (why), or read.
pub type Found = Option<Result<Credentials, String>>;

/// Decides from what was given (Secret `secret` of link `link`), what we renewed, and the time.
pub fn next(link: &str, secret: &str, given: &Found, renewed: &Found, now: Timestamp) -> Step {
    let again = link_again(link);
    let wrong = |reason, message| Step::GiveUp(Finding::Wrong(reason, message));
    let given = match given {
        None => {
            return wrong(
                "SecretMissing",
                format!("Secret {secret} with the kubeconfig does not exist: run `{again}`"),
            );
        }
        Some(Err(why)) => {
            let message = format!("the kubeconfig in Secret {secret} cannot be used: {why}; run `{again}`");
            return wrong("KubeconfigInvalid", message);
        }
        Some(Ok(given)) => given,
    };
    let chosen = choose(given, renewed.as_ref().and_then(|renewed| renewed.as_ref().ok()), now);
    match chosen.token.expires_at {
        Some(end) if end <= now => {
            let message = format!("the token for the target cluster's API ended at {end:.0}: run `{again}`");
            wrong("TokenExpired", message)
        }
        _ => Step::Use(Box::new(chosen.clone()), renew_at(&chosen.token)),
    }
}

/// When to renew a token: after two thirds of its life. One that does not say when it began gets a day before its end.
fn renew_at(token: &Token) -> Option<Timestamp> {
    let end = token.expires_at?;
    let start = token.issued_at.unwrap_or(end - SignedDuration::from_hours(24));
    Some(two_thirds(start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn found(start: &str, end: &str) -> Found {
        let payload = serde_json::json!({
            "sub": "system:serviceaccount:linkspan:access",
            "iat": at(start).as_second(), "exp": at(end).as_second(),
            "kubernetes.io": { "serviceaccount": { "uid": "u-1" } },
        });
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode(payload.to_string()));
        let text = format!(
            "current-context: w\ncontexts: [{{name: w, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: 'https://10.0.0.1'}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\n"
        );
        Some(Credentials::read(&text).map_err(|e| e.to_string()))
    }

    fn reason(step: &Step) -> (&'static str, String) {
        match step {
            Step::GiveUp(Finding::Wrong(reason, message)) => (reason, message.clone()),
            _ => panic!("it goes on"),
        }
    }

    fn decide(given: &Found, renewed: &Found, now: &str) -> Step {
        next("west", "cluster-credentials-west", given, renewed, at(now))
    }

    #[test]
    fn a_token_is_used_and_renewed_after_two_thirds_of_its_life() {
        let given = found("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let Step::Use(used, renew_at) = decide(&given, &None, "2026-01-01T01:00:00Z") else { panic!() };
        assert!(Some(Ok(*used)) == given);
        assert_eq!(renew_at, Some(at("2026-01-01T16:00:00Z")));
        let renewed = found("2026-01-01T16:00:00Z", "2026-01-02T16:00:00Z");
        let Step::Use(used, renew_at) = decide(&given, &renewed, "2026-01-02T01:00:00Z") else { panic!() };
        assert!(Some(Ok(*used)) == renewed, "the given one has ended, the renewed one has not");
        assert_eq!(renew_at, Some(at("2026-01-02T08:00:00Z")));
    }

    #[test]
    fn what_ended_is_said_with_the_command_that_mends_it() {
        let given = found("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let (reason, message) = reason(&decide(&given, &None, "2026-01-02T00:00:00Z"));
        assert_eq!(reason, "TokenExpired");
        assert_eq!(
            message,
            "the token for the target cluster's API ended at 2026-01-02T00:00:00Z: run `link-cli --context <target \
             cluster> link --cluster-name west | kubectl apply -f -`"
        );
    }

    #[test]
    fn what_is_missing_or_broken_is_said() {
        let good = found("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let now = "2026-01-01T01:00:00Z";
        assert_eq!(reason(&decide(&None, &good, now)).0, "SecretMissing");
        assert_eq!(reason(&decide(&Some(Err("no token".into())), &good, now)).0, "KubeconfigInvalid");
        assert!(matches!(decide(&good, &Some(Err("broken".into())), now), Step::Use(..)));
    }
}
