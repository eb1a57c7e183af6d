//! TLS without IO: rustls' unbuffered connections, of either side. Whoever calls lends the buffers, so a connection
//! that carries nothing holds none.

use rustls::{
    ClientConfig, CommonState, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, UnbufferedStatus},
};
use std::{io, sync::Arc};

/// Most plaintext in one TLS record (RFC 8446, 5.1).
pub const RECORD_PLAIN: usize = 16 * 1024;
/// Longest TLS record (RFC 8446, 5.2).
pub const RECORD: usize = 5 + RECORD_PLAIN + 256;
/// Plaintext that is encrypted at once; several records.
pub const SEAL_MAX: usize = 8 * RECORD_PLAIN;
/// Room that encrypting [`SEAL_MAX`] bytes needs.
pub const SEALED_ROOM: usize = SEAL_MAX + SEAL_MORE;
/// What encrypting adds at most: 22 bytes to each record, and a key update.
const SEAL_MORE: usize = 1024;

/// One side of a TLS connection.
pub enum Tls {
    /// The side that connected.
    Client(UnbufferedClientConnection),
    /// The side that accepted.
    Server(UnbufferedServerConnection),
}

/// What [`Tls::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Bytes at the front of the input that are done with; the rest must come again, in front of what follows.
    pub consumed: usize,
    /// Whether the handshake is over.
    pub established: bool,
    /// Whether the peer has ended the connection in order.
    pub closed: bool,
}

/// Bytes to be sent. It grows once and is then used again.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    end: usize,
}

impl Outgoing {
    /// What is to be sent.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Forgets what was to be sent.
    pub fn clear(&mut self) {
        self.end = 0;
    }

    /// Room for `size` more bytes.
    fn room(&mut self, size: usize) -> &mut [u8] {
        if self.bytes.len() < self.end + size {
            self.bytes.resize(self.end + size, 0);
        }
        &mut self.bytes[self.end..]
    }
}

impl Tls {
    /// The side that connects.
    ///
    /// # Errors
    /// When `config` cannot be used.
    pub fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        UnbufferedClientConnection::new(config, name).map(Self::Client)
    }

    /// The side that accepts.
    ///
    /// # Errors
    /// When `config` cannot be used.
    pub fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    /// What was negotiated.
    pub fn state(&self) -> &CommonState {
        match self {
            Self::Client(connection) => connection,
            Self::Server(connection) => connection,
        }
    }

    /// Processes the records at the front of `input`: plaintext is appended to `plain`, what TLS itself has to say
    /// to `out`.
    ///
    /// # Errors
    /// When the connection cannot go on; `out` tells the peer why.
    pub fn open(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Outgoing,
    ) -> Result<Opened, rustls::Error> {
        let mut opened = Opened { consumed: 0, established: false, closed: false };
        let done = self.open_all(input, plain, out, &mut opened);
        if done.is_err() {
            // What is left to say is the alert. Once only: TLS must not be asked to go on after that.
            let _ = self.step(&mut input[opened.consumed..], plain, out, &mut opened);
        }
        done.map(|()| opened)
    }

    fn open_all(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Outgoing,
        opened: &mut Opened,
    ) -> Result<(), rustls::Error> {
        let mut at = 0;
        loop {
            let (consumed, next) = self.step(&mut input[at..], plain, out, opened);
            at += consumed;
            opened.consumed = at;
            if !next? {
                return Ok(());
            }
        }
    }

    fn step(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Outgoing,
        opened: &mut Opened,
    ) -> (usize, Result<bool, rustls::Error>) {
        match self {
            Self::Client(connection) => step(connection.process_tls_records(input), plain, out, opened),
            Self::Server(connection) => step(connection.process_tls_records(input), plain, out, opened),
        }
    }

    /// Encrypts `plain`, at most [`SEAL_MAX`] bytes of an established connection, into `out`. `waiting` is what
    /// [`Tls::open`] has left of its input: TLS may hold positions in it.
    ///
    /// # Errors
    /// When the connection can encrypt no more.
    pub fn seal(&mut self, plain: &[u8], waiting: &mut [u8], out: &mut Outgoing) -> io::Result<()> {
        let room = out.room(plain.len() + SEAL_MORE);
        let written = match self {
            Self::Client(connection) => match connection.process_tls_records(waiting).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.encrypt(plain, room),
                other => return Err(unready(&other)),
            },
            Self::Server(connection) => match connection.process_tls_records(waiting).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.encrypt(plain, room),
                other => return Err(unready(&other)),
            },
        };
        out.end += written.map_err(io::Error::other)?;
        Ok(())
    }

    /// Says in `out` that nothing more will be sent; `waiting` as in [`Tls::seal`].
    pub fn close(&mut self, waiting: &mut [u8], out: &mut Outgoing) {
        let room = out.room(1024);
        let written = match self {
            Self::Client(connection) => match connection.process_tls_records(waiting).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(room),
                _ => Ok(0),
            },
            Self::Server(connection) => match connection.process_tls_records(waiting).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(room),
                _ => Ok(0),
            },
        };
        // A farewell that cannot be said is none: the peer sees the end of the connection in any case.
        out.end += written.unwrap_or(0);
    }
}

fn unready<D>(state: &Result<ConnectionState<'_, '_, D>, rustls::Error>) -> io::Error {
    match state {
        Err(e) => io::Error::new(io::ErrorKind::InvalidData, e.clone()),
        Ok(state) => io::Error::other(format!("TLS cannot send now: {state:?}")),
    }
}

/// Takes in one status: the bytes it has used up, and whether there may be more.
fn step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    plain: &mut Vec<u8>,
    out: &mut Outgoing,
    opened: &mut Opened,
) -> (usize, Result<bool, rustls::Error>) {
    let UnbufferedStatus { mut discard, state } = status;
    let more = match state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    plain.extend_from_slice(record.payload);
                }
                Some(Err(e)) => break Err(e),
                None => break Ok(true),
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(out, |room| data.encode(room)),
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Ok(true)
        }
        Ok(ConnectionState::PeerClosed) => {
            (opened.closed, opened.established) = (true, true);
            Ok(true)
        }
        Ok(ConnectionState::Closed) => {
            (opened.closed, opened.established) = (true, true);
            Ok(false)
        }
        Ok(ConnectionState::WriteTraffic(_)) => {
            opened.established = true;
            Ok(false)
        }
        Ok(ConnectionState::BlockedHandshake) => Ok(false),
        Ok(_) => Err(rustls::Error::General("TLS is in a state that was not asked for".to_owned())),
        Err(e) => Err(e),
    };
    (discard, more)
}

fn encode(
    out: &mut Outgoing,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> Result<bool, rustls::Error> {
    let mut size = 1024;
    loop {
        match encode(out.room(size)) {
            Ok(written) => {
                out.end += written;
                return Ok(true);
            }
            Err(EncodeError::InsufficientSize(needed)) => size = needed.required_size,
            Err(e @ EncodeError::AlreadyEncoded) => return Err(rustls::Error::General(e.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mtls::credentials::{Credentials, Texts},
        testing::certs::Authority,
    };
    use linkspan_core::api::credentials::{CLIENT_KEY, OWN_BUNDLE, SERVER_CERT, SERVER_KEY};
    use proptest::prelude::*;
    use std::{collections::BTreeMap, sync::LazyLock};

    /// A gateway that may call itself.
    static OURSELVES: LazyLock<(Arc<ServerConfig>, Arc<ClientConfig>)> = LazyLock::new(|| {
        let west = Authority::new("west");
        let (server, client) = (west.gateway("linkspan"), west.client("linkspan", "east", "u"));
        let read = Credentials::read(&Texts {
            secret: Some(BTreeMap::from([
                (SERVER_CERT.to_owned(), server.cert_pem.into_bytes()),
                (SERVER_KEY.to_owned(), server.key_pem.into_bytes()),
                ("client-west.crt".to_owned(), client.cert_pem.into_bytes()),
                (CLIENT_KEY.to_owned(), client.key_pem.into_bytes()),
            ])),
            trust: Some(BTreeMap::from([
                (OWN_BUNDLE.to_owned(), west.pem()),
                ("peer-west.crt".to_owned(), west.pem()),
            ])),
        });
        let identity = "spiffe://west.linkspan/ns/linkspan/sa/linkspan-gateway".parse().unwrap();
        (read.server.unwrap().config, Arc::new(read.clients["west"].config(&identity).unwrap()))
    });

    fn pair() -> [Tls; 2] {
        let (server, client) = &*OURSELVES;
        let name = ServerName::from(std::net::IpAddr::from([127, 0, 0, 1]));
        [Tls::client(client.clone(), name).unwrap(), Tls::server(server.clone()).unwrap()]
    }

    /// Both sides after their handshake.
    fn established() -> [Tls; 2] {
        let mut sides = pair();
        let (mut inputs, mut done) = ([Vec::new(), Vec::new()], [false; 2]);
        while done != [true; 2] {
            for i in [0, 1] {
                let (mut plain, mut out) = (Vec::new(), Outgoing::default());
                let opened = sides[i].open(&mut inputs[i], &mut plain, &mut out).unwrap();
                inputs[i].drain(..opened.consumed);
                done[i] = opened.established;
                inputs[1 - i].extend_from_slice(out.filled());
            }
        }
        sides
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_handshake_are_an_error_and_one_alert_at_most(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300), record: bool, side in 0usize..2
        ) {
            if record && bytes.len() > 5 {
                // Like a record, so that more of TLS is reached.
                let length = (bytes.len() - 5) as u16;
                bytes[..3].copy_from_slice(&[22, 3, 1]);
                bytes[3..5].copy_from_slice(&length.to_be_bytes());
            }
            let (mut plain, mut out) = (Vec::new(), Outgoing::default());
            let mut sides = pair();
            let opened = sides[side].open(&mut bytes, &mut plain, &mut out);
            prop_assert!(plain.is_empty());
            prop_assert!(opened.is_ok_and(|o| !o.established) || out.filled().len() < 2000);
        }

        #[test]
        fn what_is_sealed_is_opened_however_it_is_cut(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60_000), 1..4), cut in 1usize..70_000
        ) {
            let [mut client, mut server] = established();
            let mut out = Outgoing::default();
            for text in &texts {
                client.seal(text, &mut [], &mut out).unwrap();
            }
            let (mut waiting, mut plain, mut answer) = (Vec::new(), Vec::new(), Outgoing::default());
            for piece in out.filled().chunks(cut) {
                waiting.extend_from_slice(piece);
                let opened = server.open(&mut waiting, &mut plain, &mut answer).unwrap();
                waiting.drain(..opened.consumed);
                // Sending meanwhile disturbs nothing.
                server.seal(b"meanwhile", &mut waiting, &mut answer).unwrap();
            }
            prop_assert!(plain == texts.concat());
        }

        #[test]
        fn a_changed_record_is_never_taken_for_another(at in 0usize..60, bit in 0u8..8) {
            let [mut client, mut server] = established();
            let mut out = Outgoing::default();
            let text = b"something worth changing, and long enough";
            client.seal(text, &mut [], &mut out).unwrap();
            let mut bytes = out.filled().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            let (mut plain, mut answer) = (Vec::new(), Outgoing::default());
            let opened = server.open(&mut bytes, &mut plain, &mut answer);
            // A longer length only means that more has to come; the version in a record means nothing.
            prop_assert!(opened.is_err() || at < 5, "byte {at}");
            prop_assert!(plain.is_empty() || plain == text);
        }
    }

    #[test]
    fn a_farewell_is_told_from_a_mere_end() {
        let [mut client, mut server] = established();
        let (mut out, mut plain) = (Outgoing::default(), Vec::new());
        client.close(&mut [], &mut out);
        let mut bytes = out.filled().to_vec();
        let opened = server.open(&mut bytes, &mut plain, &mut Outgoing::default()).unwrap();
        assert!(opened.closed && opened.consumed == bytes.len());
    }
}
