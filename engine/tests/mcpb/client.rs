//! A client of the binary protocol, written from its description alone: it shares no code with the gateway.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::{Value, json};

pub(crate) const REQUEST: u16 = 1;
pub(crate) const RESPONSE: u16 = 2;
pub(crate) const CONTROL: u16 = 3;
pub(crate) const HEALTH_CHECK: u16 = 4;
pub(crate) const ERROR: u16 = 5;
pub(crate) const VERSION_NEGOTIATION: u16 = 6;
pub(crate) const VERSION_ACK: u16 = 7;

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap()
    }
}

/// Header and payload, with any type and any length.
pub(crate) fn raw(kind: u16, announced: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = b"MCPB\x00\x01".to_vec();
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(&announced.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

pub(crate) fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    raw(kind, payload.len() as u32, payload)
}

pub(crate) fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

impl Client {
    /// Connects, TLS included.
    pub(crate) fn connect(port: u16) -> io::Result<Self> {
        Self::connect_offering(port, &[])
    }

    /// Connects and offers these protocols (ALPN).
    pub(crate) fn connect_offering(port: u16, protocols: &[&str]) -> io::Result<Self> {
        let tcp = TcpStream::connect(("127.0.0.1", port))?;
        tcp.set_read_timeout(Some(PATIENCE))?;
        tcp.set_write_timeout(Some(PATIENCE))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, tcp);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Client { stream })
    }

    /// The protocol that the handshake chose (ALPN).
    pub(crate) fn chosen(&self) -> Option<&[u8]> {
        self.stream.conn.alpn_protocol()
    }

    /// Connects and agrees on version 1.
    pub(crate) fn open(port: u16) -> Self {
        let mut client = Self::connect(port).unwrap();
        client.negotiate();
        client
    }

    pub(crate) fn negotiate(&mut self) {
        self.send_json(
            VERSION_NEGOTIATION,
            &json!({"min_version": 1, "max_version": 1, "preferred_version": 1, "supported_versions": [1]}),
        );
        let ack = self.receive();
        assert_eq!((ack.kind, ack.payload), (VERSION_ACK, br#"{"agreed_version":1}"#.to_vec()));
    }

    /// Connects, agrees on version 1 and opens a session of revision 2025-06-18.
    pub(crate) fn log_in(port: u16) -> Self {
        let mut client = Self::open(port);
        let result = client.ask(&initialize(json!({})))["result"].take();
        assert_eq!(result["protocolVersion"], "2025-06-18");
        client.send_json(REQUEST, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        client
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    pub(crate) fn send(&mut self, kind: u16, payload: &[u8]) {
        self.send_bytes(&frame(kind, payload));
    }

    pub(crate) fn send_json(&mut self, kind: u16, payload: &Value) {
        self.send(kind, payload.to_string().as_bytes());
    }

    /// The next frame; `None` when the gateway closed in good order.
    pub(crate) fn try_receive(&mut self) -> Option<Frame> {
        let mut header = [0; 12];
        let mut filled = 0;
        while filled < header.len() {
            match self.stream.read(&mut header[filled..]).unwrap() {
                0 if filled == 0 => return None,
                0 => panic!("the gateway closed within a header"),
                read => filled += read,
            }
        }
        assert_eq!(&header[..6], b"MCPB\x00\x01");
        let kind = u16::from_be_bytes([header[6], header[7]]);
        let length = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        assert!(length <= 10_485_760);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        Some(Frame { kind, payload })
    }

    pub(crate) fn receive(&mut self) -> Frame {
        self.try_receive().expect("the gateway closed instead of answering")
    }

    /// Sends a request and takes the next frame for its response.
    pub(crate) fn ask(&mut self, request: &Value) -> Value {
        self.send_json(REQUEST, request);
        let response = self.receive();
        assert_eq!(response.kind, RESPONSE, "{response:?}");
        let response = response.json();
        let id = request.get("id").or_else(|| request["request"].get("id"));
        assert_eq!(Some(&response["id"]), id, "{response}");
        response
    }

    /// Expects an Error frame and then the end; says the error's text.
    pub(crate) fn expect_error(&mut self) -> String {
        let error = self.receive();
        assert_eq!(error.kind, ERROR, "{error:?}");
        self.expect_end();
        error.text().to_owned()
    }

    pub(crate) fn expect_end(&mut self) {
        if let Some(frame) = self.try_receive() {
            panic!("{frame:?} in place of the end");
        }
    }
}

/// An `initialize` with the MCP fields and these beside them.
pub(crate) fn initialize(beside: Value) -> Value {
    let mut params = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    if let (Some(params), Value::Object(beside)) = (params.as_object_mut(), beside) {
        params.extend(beside);
    }
    json!({"jsonrpc": "2.0", "id": "login", "method": "initialize", "params": params})
}

/// The gateway under test makes its certificate itself.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
