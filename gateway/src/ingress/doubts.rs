//! When live flows must be asked about again: one notice for all reasons, as each flow waits for it.

use crate::source::Tables;
use linkspan_core::process::shutdown::Shutdown;
use tokio::sync::watch;

/// Counts on whenever what flows may do, or whether they go on at all, may have changed; and the work of counting, for as
/// long as anything can change.
pub fn doubts(
    tables: &Tables,
    stop: Shutdown,
) -> (watch::Receiver<u64>, impl Future<Output = ()> + Send + 'static) {
    let (mut exports, mut accounts) = (tables.exports.subscribe(), tables.accounts.subscribe());
    let mut credentials = tables.credentials.subscribe();
    let (sender, receiver) = watch::channel(0_u64);
    let count = async move {
        let mut stopping = false;
        loop {
            tokio::select! {
                changed = exports.changed() => if changed.is_err() { return },
                changed = accounts.changed() => if changed.is_err() { return },
                changed = credentials.changed() => if changed.is_err() { return },
                () = stop.started(), if !stopping => stopping = true,
            }
            sender.send_modify(|n| *n = n.wrapping_add(1));
        }
    };
    (receiver, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mtls::credentials::Credentials;
    use linkspan_core::process::shutdown;
    use std::{collections::BTreeMap, sync::Arc, time::Duration};
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn whatever_changes_what_flows_may_do_is_a_reason_to_ask_again() {
        let (tables, (trigger, stop)) = (Tables::empty(), shutdown::manual());
        let (mut receiver, count) = doubts(&tables, stop);
        let counting = tokio::spawn(count);
        let changes: [&dyn Fn(); 4] = [
            &|| tables.update_exports(|_| true),
            &|| tables.accounts.update(|t| t.reset(BTreeMap::from([("east".to_owned(), "1".to_owned())]))),
            &|| drop(tables.credentials.send_replace(Arc::new(Credentials::default()))),
            &|| trigger.start(),
        ];
        for change in changes {
            let nothing = timeout(Duration::from_secs(60), receiver.changed()).await;
            assert!(nothing.is_err(), "nothing has changed");
            change();
            timeout(Duration::from_secs(60), receiver.changed()).await.unwrap().unwrap();
        }
        counting.abort();
    }
}
