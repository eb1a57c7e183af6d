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
/// Room that encrypting [`SEAL_MAX`] bytes needs, a key update included.
const SEALED_ROOM: usize = SEAL_MAX + 1024;

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
            // What is left to say is the alert; that the connection has failed is known.
            let _ = self.open_all(&mut input[opened.consumed..], plain, out, &mut opened);
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
            let rest = &mut input[at..];
            let (consumed, next) = match self {
                Self::Client(connection) => step(connection.process_tls_records(rest), plain, out, opened),
                Self::Server(connection) => step(connection.process_tls_records(rest), plain, out, opened),
            };
            at += consumed;
            opened.consumed = opened.consumed.max(at);
            if !next? {
                return Ok(());
            }
        }
    }

    /// Encrypts `plain`, at most [`SEAL_MAX`] bytes of an established connection, into `out`. `waiting` is what
    /// [`Tls::open`] has left of its input: TLS may hold positions in it.
    ///
    /// # Errors
    /// When the connection can encrypt no more.
    pub fn seal(&mut self, plain: &[u8], waiting: &mut [u8], out: &mut Outgoing) -> io::Result<()> {
        let room = out.room(SEALED_ROOM);
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
