//! Tasks that outlive what began them: kept in one set, so that one that fails is seen and none outlives the gateway.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::JoinSet;

/// The set.
#[derive(Clone, Debug, Default)]
pub struct Owned(Arc<Mutex<JoinSet<()>>>);

impl Owned {
    /// Runs `task` until its end, or until the set goes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of a split failed");
            }
        }
        tasks.spawn(task);
    }
}

impl<F> hyper::rt::Executor<F> for Owned
where
    F: Future<Output: Send> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}
