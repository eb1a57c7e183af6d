//! Where key material lies, under which keys of which object, and how denied serial numbers are written.

use std::collections::BTreeSet;

/// Secret with the cluster's CA, readable by the controller alone.
pub const CA_SECRET: &str = "linkspan-ca";
/// Key of [`CA_SECRET`]: the CA's certificate (PEM).
pub const CA_CERT: &str = "tls.crt";
/// Key of [`CA_SECRET`]: the CA's private key (PEM, PKCS#8).
pub const CA_KEY: &str = "tls.key";

/// Secret with what the gateways prove themselves by.
pub const GATEWAY_TLS_SECRET: &str = "linkspan-gateway-tls";
/// Key of [`GATEWAY_TLS_SECRET`]: server certificate chain (PEM), signed by this cluster's CA.
pub const SERVER_CERT: &str = "server.crt";
/// Key of [`GATEWAY_TLS_SECRET`]: private key of the server certificate (PEM, PKCS#8).
pub const SERVER_KEY: &str = "server.key";
/// Key of [`GATEWAY_TLS_SECRET`]: the one private key of all client certificates (PEM, PKCS#8).
pub const CLIENT_KEY: &str = "client.key";

/// Key of [`GATEWAY_TLS_SECRET`]: this cluster's present and former CAs (JSON), for the controller alone. A former CA
/// stays trusted for as long as what it signed lives; without this key only the present one is.
pub const CA_HISTORY: &str = "ca-history.json";

/// ConfigMap with whom the gateways trust.
pub const GATEWAY_TRUST_CONFIG_MAP: &str = "linkspan-gateway-trust";
/// Key of [`GATEWAY_TRUST_CONFIG_MAP`]: this cluster's own CA bundle (PEM); callers must be signed by it.
pub const OWN_BUNDLE: &str = "own-bundle.crt";
/// Key of [`GATEWAY_TRUST_CONFIG_MAP`]: serial numbers that are denied, as [`denied_serials`] reads them. People write it;
/// the controller leaves it as it is.
pub const DENIED_SERIALS: &str = "denied-serials";

/// ConfigMap by which a cluster publishes its CA bundle to linked clusters.
pub const CA_BUNDLE_CONFIG_MAP: &str = "linkspan-ca-bundle";
/// Key of [`CA_BUNDLE_CONFIG_MAP`] and of the copies that `link` prints: CA bundle (PEM).
pub const CA_BUNDLE: &str = "ca-bundle.crt";
/// Key of [`CA_BUNDLE_CONFIG_MAP`]: the cluster's trust domain.
pub const TRUST_DOMAIN: &str = "trust-domain";

/// Type of the Secret that `link` prints.
pub const REMOTE_KUBECONFIG_TYPE: &str = "mirror.linkerd.io/remote-kubeconfig";
/// Key of that Secret.
pub const KUBECONFIG: &str = "kubeconfig";

/// Key of [`GATEWAY_TLS_SECRET`] with the client certificate chain (PEM) for link `link`, signed by the cluster
/// that the link leads to.
pub fn client_cert(link: &str) -> String {
    format!("client-{link}.crt")
}

/// The link whose client certificate lies under `key`.
pub fn link_of_client_cert(key: &str) -> Option<&str> {
    key.strip_prefix("client-")?.strip_suffix(".crt")
}

/// Key of [`GATEWAY_TRUST_CONFIG_MAP`] with the CA bundle (PEM) of the cluster behind link `link`.
pub fn peer_bundle(link: &str) -> String {
    format!("peer-{link}.crt")
}

/// The link whose CA bundle lies under `key`.
pub fn link_of_peer_bundle(key: &str) -> Option<&str> {
    key.strip_prefix("peer-")?.strip_suffix(".crt")
}

/// Reads a list of denied serial numbers: one a line, in hex, `#` begins a comment. As `openssl x509 -serial` and browsers
/// write them: case, leading zeros, colons, spaces, and `serial=` or `0x` in front make no difference.
///
/// Returns the numbers as [`normal_serial`] writes them, and the lines that are none.
pub fn denied_serials(text: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut serials, mut others) = (BTreeSet::new(), Vec::new());
    for line in text.lines() {
        let entry = line.split('#').next().unwrap_or_default().trim().to_ascii_lowercase();
        if entry.is_empty() {
            continue;
        }
        let digits = entry.strip_prefix("serial=").unwrap_or(&entry).trim();
        let digits = digits.strip_prefix("0x").unwrap_or(digits);
        let fit = digits.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == ' ');
        let serial = normal_serial(digits);
        if fit && !serial.is_empty() {
            serials.insert(serial);
        } else {
            others.push(line.trim().chars().take(80).collect());
        }
    }
    (serials, others)
}

/// A serial number as it is compared: lower-case hex without leading zeros. Anything but digits is passed over.
pub fn normal_serial(text: &str) -> String {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    digits.to_ascii_lowercase().trim_start_matches('0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn serials_are_read_as_people_paste_them() {
        let text = "serial=7F0A\n 0x00ab:CD # stolen laptop\n\n# bad day\nab cd\r\n";
        let (serials, others) = denied_serials(text);
        assert_eq!(serials.into_iter().collect::<Vec<_>>(), ["7f0a", "abcd"]);
        assert_eq!(others, Vec::<String>::new());
    }

    #[test]
    fn what_is_no_serial_is_told_and_never_guessed() {
        let (serials, others) = denied_serials("laptop of bob\n0\n12zz\nabc, def\n-7\n");
        assert!(serials.is_empty(), "{serials:?}");
        assert_eq!(others, ["laptop of bob", "0", "12zz", "abc, def", "-7"]);
    }

    proptest! {
        #[test]
        fn every_form_of_a_number_is_the_same_number(number in 1u128.., zeros in 0usize..4) {
            let plain = format!("{number:x}");
            let padded = format!("{}{plain}", "0".repeat(zeros));
            let pairs: Vec<String> = number.to_be_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
            for form in [padded.to_uppercase(), format!("serial={padded}"), format!("0x{padded}"), pairs.join(":"), pairs.join(" ")] {
                let (serials, others) = denied_serials(&format!("  {form}  # why\r\n"));
                prop_assert_eq!((serials, others), (BTreeSet::from([plain.clone()]), vec![]));
            }
        }

        #[test]
        fn any_text_is_read_and_no_line_is_lost(text in "(?s).{0,200}") {
            let (serials, others) = denied_serials(&text);
            let lines = text.lines().filter(|line| !line.split('#').next().unwrap_or_default().trim().is_empty()).count();
            prop_assert!(serials.len() + others.len() <= lines);
            prop_assert!(lines == 0 || !serials.is_empty() || !others.is_empty());
        }
    }
}
