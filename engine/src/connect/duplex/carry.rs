//! One connection: owns its reading and writing, side by side, and the handshake that comes before the client's own messages.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use futures_util::io::{ReadHalf, WriteHalf};
use futures_util::{AsyncReadExt, AsyncWriteExt};
use mcp_protocol::jsonrpc::Kind;

use super::codec::{Codec, Event};
use super::{Duplex, Ending, Goodbye, Stage};
use crate::connect::front::Stuck;
use crate::connect::message::{Fault, Message, RequestId};
use crate::net::stream::Stream;
use crate::respond::Refusal;
use crate::shard::core::Elapsed;

/// How long the gateway may take until the connection is open and the client's handshake has been said again.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long the gateway may take to take one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
const READ_BYTES: usize = 64 << 10;

/// The handshake that is being said again: its answer is not shown to the client, who has had one.
struct Replay {
    id: RequestId,
    initialized: Option<Rc<Message>>,
}

impl<C: Codec> Duplex<C> {
    /// Carries messages both ways until the connection is gone.
    pub(super) async fn carry(self: &Rc<Self>, stream: Stream) -> Ending {
        self.urgent.borrow_mut().clear();
        self.codec.borrow_mut().begin(self.token.now().as_deref(), &mut self.urgent.borrow_mut());
        self.stage.set(Stage::Opening);
        let (reader, writer) = stream.split();
        let door = self.clone();
        let writing = self.front.host.spawn(async move { door.write_all(writer).await });
        let ending = self.read_all(reader).await;
        self.stage.set(Stage::Gone);
        self.front.host.cancel(writing);
        ending
    }

    /// Writes what is urgent, and else one message after another, until the connection is gone.
    async fn write_all(&self, mut writer: WriteHalf<Stream>) {
        loop {
            let bytes = self.changed.until(|| self.next_bytes()).await;
            let sending = async {
                writer.write_all(&bytes).await?;
                writer.flush().await
            };
            if !matches!(self.front.host.within(SEND_TIMEOUT, sending).await, Ok(Ok(()))) {
                // The reader learns of it, and ends the connection.
                self.stage.set(Stage::Gone);
                self.changed.open();
                return;
            }
        }
    }

    fn next_bytes(&self) -> Option<Vec<u8>> {
        let stage = self.stage.get();
        if !self.urgent.borrow().is_empty() {
            return Some(self.urgent.take());
        }
        match self.goodbye.get() {
            Goodbye::Unwanted => {}
            Goodbye::Wanted if matches!(stage, Stage::Open | Stage::Leaving) => return self.part(),
            Goodbye::Wanted | Goodbye::Said | Goodbye::Over => return None,
        }
        loop {
            let parcel = {
                let mut queue = self.queue.borrow_mut();
                let place = match stage {
                    Stage::Open => 0,
                    Stage::Leaving => queue.iter().position(|parcel| parcel.flight.is_answered())?,
                    Stage::Opening | Stage::Gone => return None,
                };
                queue.remove(place)?
            };
            let mut bytes = Vec::new();
            let encoded =
                self.codec.borrow_mut().encode(&parcel.message, self.token.now().as_deref(), &mut bytes);
            if let Err(fault) = encoded {
                let front = self.front.clone();
                self.front.host.spawn(async move { front.fail(&parcel.flight, &fault).await });
                continue;
            }
            if parcel.flight.is_answered() {
                self.front.land(&parcel.flight);
            } else {
                self.sent.borrow_mut().push(parcel);
            }
            return Some(bytes);
        }
    }

    /// The goodbye. Where it cannot be said, the connection ends all the same.
    fn part(&self) -> Option<Vec<u8>> {
        self.goodbye.set(Goodbye::Said);
        let mut bytes = Vec::new();
        match self.codec.borrow_mut().part(&mut bytes) {
            Ok(()) => Some(bytes),
            Err(why) => {
                tracing::debug!(why, "the gateway does not hear of the session's end");
                self.stage.set(Stage::Gone);
                self.changed.open();
                None
            }
        }
    }

    async fn read_all(self: &Rc<Self>, mut reader: ReadHalf<Stream>) -> Ending {
        let mut input = Vec::new();
        let mut replay = None;
        let opening = self.read_until_open(&mut reader, &mut input, &mut replay);
        match self.front.host.within(OPEN_TIMEOUT, opening).await {
            Ok(Ok(())) => {}
            Ok(Err(ending)) => return ending,
            Err(Elapsed) => return Ending::Lost("the gateway did not open the connection in time".into()),
        }
        loop {
            let handled = match self.next_event(&mut reader, &mut input).await {
                Ok(event) => self.handle(event).await,
                Err(ending) => Err(ending),
            };
            if let Err(ending) = handled {
                return ending;
            }
        }
    }

    /// Reads until the client's own messages may go out.
    async fn read_until_open(
        self: &Rc<Self>,
        reader: &mut ReadHalf<Stream>,
        input: &mut Vec<u8>,
        replay: &mut Option<Replay>,
    ) -> Result<(), Ending> {
        loop {
            match self.next_event(reader, input).await? {
                Event::Open => match self.begin_replay() {
                    Some(begun) => *replay = Some(begun),
                    None => break,
                },
                Event::Message(text) if replay.as_ref().is_some_and(|replay| replay.is_answer(&text)) => {
                    self.end_replay(&text, replay.take()).await;
                    break;
                }
                event => self.handle(event).await?,
            }
        }
        if self.stage.get() == Stage::Opening {
            self.stage.set(Stage::Open);
        }
        self.changed.open();
        Ok(())
    }

    /// Says the client's handshake again, if there was one and somebody will use the session.
    fn begin_replay(&self) -> Option<Replay> {
        let handshake = self.handshake.borrow();
        let stays = self.goodbye.get() == Goodbye::Unwanted;
        let is_needed = stays && handshake.is_agreed && !self.codec.borrow().is_resumed();
        let initialize = handshake.initialize.clone().filter(|_| is_needed)?;
        let id = initialize.requests().into_iter().next()?;
        let token = self.token.now();
        let mut codec = self.codec.borrow_mut();
        // It was sent before, so it can be sent again.
        codec.encode(&initialize, token.as_deref(), &mut self.urgent.borrow_mut()).ok()?;
        drop(codec);
        self.changed.open();
        Some(Replay { id, initialized: handshake.initialized.clone() })
    }

    async fn end_replay(&self, answer: &[u8], replay: Option<Replay>) {
        let agreed = Message::parse(answer.to_vec())
            .ok()
            .and_then(|answer| answer.single().map(|scan| scan.result_protocol_version.is_some()));
        if agreed != Some(true) {
            tracing::warn!("the session has ended and could not be opened again");
            let refused = || Fault::lasting("the server refused to initialize again");
            return self.give_up_session(&Fault::of_answer(answer, refused)).await;
        }
        tracing::debug!("another session is open");
        let token = self.token.now();
        let mut codec = self.codec.borrow_mut();
        codec.learn(answer);
        let initialized = replay.and_then(|replay| replay.initialized);
        let settings = self.front.settings.requests();
        for message in initialized.iter().map(Rc::as_ref).chain(&settings) {
            let said = codec.encode(message, token.as_deref(), &mut self.urgent.borrow_mut());
            if let Err(fault) = said {
                tracing::warn!("{} could not be said again: {}", message.name(), fault.message);
            }
        }
    }

    async fn handle(self: &Rc<Self>, event: Event) -> Result<(), Ending> {
        match event {
            Event::Open => Ok(()),
            Event::Leaving => {
                tracing::debug!("the gateway shuts down");
                self.stage.set(Stage::Leaving);
                Ok(())
            }
            Event::Ended(why) => Err(Ending::Lost(why)),
            Event::Restarting(why) => Err(Ending::Untaken(why)),
            Event::Refused(why) => Err(Ending::Refused(why)),
            Event::Denied(why) => Err(Ending::Denied(why)),
            Event::SessionEnded => Err(Ending::SessionEnded),
            Event::Message(text) => self.pass(&text).await,
        }
    }

    /// Passes a message on to the client, but for refusals that the next connection will not bring.
    async fn pass(&self, text: &[u8]) -> Result<(), Ending> {
        match self.refusal_of(text) {
            Some(Refusal::Draining) => {
                self.stage.set(Stage::Leaving);
                return Ok(());
            }
            Some(_) => return Err(Ending::SessionEnded),
            None => {}
        }
        match self.front.pass(text).await {
            Ok(Some(scan)) => {
                if scan.kind == Kind::Response {
                    self.learn(text, &scan);
                    self.forget_answered();
                }
                Ok(())
            }
            Ok(None) => {
                self.forget_answered();
                Ok(())
            }
            Err(Stuck::ClientGone) => Err(Ending::Lost("the client is gone".into())),
            Err(Stuck::Malformed(what)) => {
                Err(Ending::Refused(format!("it sent what is no message: {what}")))
            }
        }
    }

    /// A refusal of the gateway's own by which nothing was done, and whose request waits again: it shuts down, or it does not
    /// know the session.
    fn refusal_of(&self, text: &[u8]) -> Option<Refusal> {
        /// Longer answers are no refusals.
        const MAX_REFUSAL_BYTES: usize = 4096;
        if text.len() > MAX_REFUSAL_BYTES {
            return None;
        }
        let answer = Message::parse(text.to_vec()).ok()?;
        let id = answer.single().filter(|scan| scan.is_error)?.id?;
        let fault = Fault::of_answer(text, || Fault::lasting(""));
        let known = [Refusal::Draining, Refusal::SessionUnknown];
        let refusal = known
            .into_iter()
            .find(|known| fault.code == known.row().code && fault.message == known.message())?;
        self.requeue_refused(id.of(text)).then_some(refusal)
    }

    /// The next event; bytes that the codec wants sent go out before any message.
    async fn next_event(&self, reader: &mut ReadHalf<Stream>, input: &mut Vec<u8>) -> Result<Event, Ending> {
        loop {
            let decoded = {
                let mut urgent = self.urgent.borrow_mut();
                let before = urgent.len();
                let decoded = self.codec.borrow_mut().decode(input, &mut urgent);
                if urgent.len() > before {
                    self.changed.open();
                }
                decoded
            };
            match decoded {
                Ok(Some(event)) => return Ok(event),
                Ok(None) => self.read_more(reader, input).await?,
                Err(what) => return Err(Ending::Refused(what)),
            }
        }
    }

    async fn read_more(&self, reader: &mut ReadHalf<Stream>, input: &mut Vec<u8>) -> Result<(), Ending> {
        let held = input.len();
        input.resize(held + READ_BYTES, 0);
        let read = {
            let reading = pin!(reader.read(&mut input[held..]));
            let gone = pin!(self.changed.until(|| (self.stage.get() == Stage::Gone).then_some(())));
            match select(reading, gone).await {
                Either::Left((read, _)) => read,
                Either::Right(_) => return Err(Ending::Lost("a message could not be sent".into())),
            }
        };
        input.truncate(held + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Ending::Lost("it was closed".into())),
            Ok(_) => Ok(()),
            Err(error) => Err(Ending::Lost(error.to_string())),
        }
    }
}

impl Replay {
    fn is_answer(&self, text: &[u8]) -> bool {
        let Ok(message) = Message::parse(text.to_vec()) else { return false };
        let response = message.single().filter(|scan| scan.kind == Kind::Response);
        response.and_then(|scan| scan.id).is_some_and(|id| self.id.is(id.of(text)))
    }
}
