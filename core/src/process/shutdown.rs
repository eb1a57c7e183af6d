//! When to stop: one signal starts an orderly stop, a second one ends the process at once.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// Tells whoever holds a clone when to stop.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Starts the stop; kept by whoever decides.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// A stop that only [`Trigger::start`] begins.
pub fn manual() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Begins the stop.
    pub fn start(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Completes once the stop has begun, or nobody can begin it any more.
    pub async fn started(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone: whoever would have decided has ended.
        let _ = receiver.wait_for(|started| *started).await;
    }

    /// Whether the stop has begun.
    pub fn has_started(&self) -> bool {
        *self.0.borrow()
    }
}

/// A stop that begins with SIGTERM or SIGINT. A second signal exits the process with 128 + its number.
///
/// The returned task watches the signals; it must be kept and polled (e.g. in the process's task set).
///
/// # Errors
/// When the system refuses the handlers.
pub fn on_signals() -> std::io::Result<(Shutdown, impl Future<Output = ()> + Send + 'static)> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (trigger, shutdown) = manual();
    let watcher = async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => 15,
                _ = interrupt.recv() => 2,
            }
        };
        let number = next().await;
        tracing::info!(signal = number, "stopping; a second signal ends at once");
        trigger.start();
        let number = next().await;
        tracing::warn!(signal = number, "second signal: ending at once");
        std::process::exit(128 + number);
    };
    Ok((shutdown, watcher))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_clones_see_the_stop() {
        let (trigger, shutdown) = manual();
        let other = shutdown.clone();
        assert!(!other.has_started());
        trigger.start();
        other.started().await;
        assert!(shutdown.has_started());
    }
}
