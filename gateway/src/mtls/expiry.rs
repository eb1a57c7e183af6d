//! Until when a connection may be used, by the certificate its peer proved itself with. Pure: both clocks are passed in.
//!
//! TLS looks at certificates in the handshake only; a connection that lives longer than its peer's certificate would
//! let somebody in who is let in no more. Time is counted from the handshake on, so setting the clock later neither
//! cuts a connection nor keeps it.

use jiff::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// At most so long before its end a connection takes no new flow.
const MARGIN: Duration = Duration::from_secs(60);
/// A certificate is valid through the second it names (RFC 5280, 4.1.2.5).
const THROUGH: Duration = Duration::from_secs(1);
/// Longer than any process runs, and not too long for any clock.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The last moments of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// From when on it takes no new flow.
    pub retires: Instant,
    /// When its flows are cut.
    pub ends: Instant,
}

impl Expiry {
    /// Of a connection that is made at `now`, when the wall clock shows `wall`, with a peer whose certificate is valid
    /// until `not_after`. One that is made with little time left retires the later, so that a certificate that is not
    /// renewed serves as long as it can.
    pub fn new(not_after: Timestamp, wall: Timestamp, now: Instant) -> Self {
        let left = not_after.duration_since(wall).saturating_add(THROUGH.try_into().unwrap_or_default());
        // A span that is over is negative.
        let left = Duration::try_from(left).unwrap_or_default().min(FOREVER);
        Self { retires: now + (left - MARGIN.min(left / 10)), ends: now + left }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_connection_ends_with_the_certificate_and_takes_no_flow_shortly_before() {
        let now = Instant::now();
        let day = Expiry::new(at(100_000 + 86_400), at(100_000), now);
        assert_eq!(day.ends, now + Duration::from_secs(86_401));
        assert_eq!(day.retires, day.ends - MARGIN);
        let short = Expiry::new(at(100_009), at(100_000), now);
        assert_eq!(
            (short.retires, short.ends),
            (now + Duration::from_secs(9), now + Duration::from_secs(10))
        );
        let over = Expiry::new(at(99_998), at(100_000), now);
        assert_eq!((over.retires, over.ends), (now, now));
        assert_eq!(Expiry::new(Timestamp::MAX, Timestamp::MIN, now).ends, now + FOREVER);
    }

    proptest! {
        #[test]
        fn nobody_is_served_longer_than_the_certificate_is_valid(not_after: i32, wall: i32, later in 0u64..1 << 29) {
            let now = Instant::now();
            let expiry = Expiry::new(at(not_after.into()), at(wall.into()), now);
            prop_assert!(now <= expiry.retires && expiry.retires <= expiry.ends);
            prop_assert!(expiry.ends - expiry.retires <= MARGIN);
            let valid = i64::from(wall) + later as i64 <= i64::from(not_after);
            prop_assert_eq!(now + Duration::from_secs(later) < expiry.ends, valid);
        }
    }
}
