//! How far an API server's clock is from ours, by the `Date` of an answer.

use crate::process::clock::Clock;
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use kube::{Client, client::Body};

/// The API server's clock minus `clock`, to about a second; `None` when it says no time.
///
/// # Errors
/// When the API server does not answer. The caller bounds the time it may take.
pub async fn of_server(client: &Client, clock: &Clock) -> kube::Result<Option<SignedDuration>> {
    let request = hyper::Request::get("/version").body(Body::empty()).map_err(kube::Error::HttpError)?;
    let asked = clock.now();
    let answer = client.send(request).await?;
    let answered = clock.now();
    let date = answer.headers().get(hyper::header::DATE).and_then(|date| date.to_str().ok());
    Ok(date.and_then(|date| between(date, asked, answered)))
}

/// The clock behind `date`, written between `asked` and `answered`, minus the clock of these two. `Date` is cut to whole
/// seconds, so half a second is added.
fn between(date: &str, asked: Timestamp, answered: Timestamp) -> Option<SignedDuration> {
    let theirs = rfc2822::parse(date).ok()?.timestamp() + SignedDuration::from_millis(500);
    let ours = asked + answered.duration_since(asked) / 2;
    Some(theirs.duration_since(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_round_trip_is_compared_with_the_middle_of_the_second() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let (asked, answered) = (time("2026-01-02T03:04:05Z"), time("2026-01-02T03:04:06Z"));
        let skew = |date| between(date, asked, answered);
        assert_eq!(skew("Fri, 02 Jan 2026 03:04:05 GMT"), Some(SignedDuration::ZERO));
        assert_eq!(skew("Fri, 02 Jan 2026 03:09:05 GMT"), Some(SignedDuration::from_mins(5)));
        assert_eq!(skew("Fri, 02 Jan 2026 03:03:05 GMT"), Some(SignedDuration::from_mins(-1)));
        assert_eq!(skew("yesterday"), None);
    }
}
