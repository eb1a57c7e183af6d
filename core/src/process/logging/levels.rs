//! What a log level means: ours at that level, and libraries no louder than they are useful.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// How our own crates' targets begin.
const OURS: [&str; 2] = ["linkspan", "link_cli"];
/// Where kube's client logs an error for every connection that fails. Whoever asked says the same, with the cause, what
/// it was for and what follows, and when that changes; so here it would only be repeated at every attempt.
const REPEATED: &str = "kube_client::client::builder";

/// The filter that `level` asks for: a level, or levels by target.
pub(super) fn filter(level: &str) -> Result<Targets, String> {
    let unread = |part: &&str| {
        let (target, level) = part.split_once('=').unwrap_or(("all", part));
        target.trim().is_empty() || level.trim().is_empty() || level.parse::<LevelFilter>().is_err()
    };
    let advice = "use error, warn, info, debug or trace, also by target: info,linkspan_gateway=debug";
    if let Some(part) = level.split(',').find(unread) {
        return Err(format!("log level {level:?} cannot be read ({part:?} is no level): {advice}"));
    }
    directives(level).parse().map_err(|e| format!("log level {level:?} cannot be read ({e}): {advice}"))
}

/// The filter's text. A level alone is about us: libraries tell at most what they hold for information. A filter is taken
/// as it is.
fn directives(level: &str) -> String {
    let Ok(own) = level.parse::<LevelFilter>() else { return level.to_owned() };
    let ours = OURS.map(|target| format!("{target}={own}"));
    format!("{},{REPEATED}=off,{}", own.min(LevelFilter::INFO), ours.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Which of some lines by us and by libraries are logged at `level`.
    fn logged(level: &str) -> String {
        let buffer = Buffer::default();
        let out = buffer.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || out.clone()).with_ansi(false);
        let lines = lines.without_time().with_target(false);
        let subscriber = tracing_subscriber::registry().with(filter(level).unwrap()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            tracing::trace!(target: "linkspan_gateway::egress", "our-trace");
            tracing::debug!(target: "linkspan_gateway::egress", "our-debug");
            tracing::debug!(target: "link_cli", "our-other-debug");
            tracing::info!(target: "linkspan_mirror_controller::leader", "our-info");
            tracing::debug!(target: "hyper_util::client::legacy", "hyper-debug");
            tracing::debug!(target: "tower::buffer", "tower-debug");
            tracing::info!(target: "hyper_util::client::legacy", "hyper-info");
            tracing::warn!(target: "kube_client::client", "kube-warn");
            tracing::error!(target: "kube_client::client::builder", "kube-connect");
        });
        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let words: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().last()).collect();
        words.join(" ")
    }

    #[test]
    fn a_level_is_about_us_and_libraries_stay_quiet() {
        assert_eq!(logged("warn"), "kube-warn");
        assert_eq!(logged("info"), "our-info hyper-info kube-warn");
        assert_eq!(logged("debug"), "our-debug our-other-debug our-info hyper-info kube-warn");
        assert_eq!(logged("TRACE"), "our-trace our-debug our-other-debug our-info hyper-info kube-warn");
        assert_eq!(logged("off"), "");
    }

    #[test]
    fn a_filter_is_taken_as_it_is() {
        assert_eq!(logged("warn,hyper_util=debug"), "hyper-debug hyper-info kube-warn kube-connect");
        assert_eq!(logged("linkspan_gateway=debug"), "our-debug");
        for bad in ["info,linkspan=loud", "verbose", "", "info,", "info,=", "=info", "hyper="] {
            let error = filter(bad).unwrap_err();
            assert!(error.contains("use error, warn, info"), "{bad}: {error}");
        }
    }
}
