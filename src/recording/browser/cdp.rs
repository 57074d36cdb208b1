//! The line to Chromium: commands out, replies and events back.
//!
//! chromiumoxide gives the WebSocket and the typed protocol. Its own `Handler` is not used: it turns on Network, Log,
//! Performance and Runtime for every page (each console line and WebSocket frame of a class would pass through us),
//! holds up every frame and worker until we answer, and closes a page that does not answer in time. Events are read
//! as plain JSON, so a field that a newer Chromium adds or renames cannot break one that is not used.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use chromiumoxide::Connection;
use chromiumoxide::cdp::browser_protocol::target::SessionId;
use chromiumoxide::error::CdpError;
use chromiumoxide::types::{CallId, Command, EventMessage, Message, Method, MethodId, Response};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

/// Commands that await their reply at once. The recorder has a handful under way; more means that Chromium hangs.
const MAX_PENDING: usize = 256;
/// Commands between their senders and the connection.
const QUEUE: usize = 32;

/// A command that did not do what it should.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The connection has ended.
    #[error("chromium's control connection has ended")]
    Closed,
    /// No reply in time.
    #[error("chromium did not answer {command} within {} ms", bound.as_millis())]
    Silent {
        /// Its name in the protocol.
        command: MethodId,
        /// What was waited.
        bound: Duration,
    },
    /// An error for a reply.
    #[error("chromium refused {command}: {reason}")]
    Refused {
        /// Its name in the protocol.
        command: MethodId,
        /// Chromium's words.
        reason: String,
    },
    /// A reply that this protocol version does not know.
    #[error("chromium's answer to {command} is not understood")]
    Strange {
        /// Its name in the protocol.
        command: MethodId,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The connection could not be made.
    #[error("chromium's control connection could not be made")]
    Connect(#[source] Box<CdpError>),
}

/// An event as it comes.
#[derive(Debug, Deserialize)]
pub struct Event {
    /// Its name in the protocol.
    pub method: String,
    /// The page it is about; absent for the browser's own.
    #[serde(rename = "sessionId")]
    pub session: Option<String>,
    /// Its content.
    #[serde(default)]
    pub params: Value,
}

impl Event {
    /// A string inside the content, by JSON pointer.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.params.pointer(pointer)?.as_str()
    }
}

impl Method for Event {
    fn identifier(&self) -> MethodId {
        Cow::Owned(self.method.clone())
    }
}

impl EventMessage for Event {
    fn session_id(&self) -> Option<&str> {
        self.session.as_deref()
    }
}

/// A command on its way to the connection.
#[derive(Debug)]
pub struct Request {
    method: MethodId,
    session: Option<SessionId>,
    params: Value,
    reply: oneshot::Sender<Response>,
}

/// Sends commands. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Cdp {
    requests: mpsc::Sender<Request>,
}

impl Cdp {
    /// Sends a command to the browser, or to a page by its session, and waits for the reply.
    pub async fn call<C: Command>(
        &self,
        session: Option<&SessionId>,
        command: C,
        bound: Duration,
    ) -> Result<C::Response, ControlError> {
        let method = command.identifier();
        let strange = |source| ControlError::Strange { command: method.clone(), source };
        let params = serde_json::to_value(command).map_err(strange)?;
        let (reply, replied) = oneshot::channel();
        let request = Request { method: method.clone(), session: session.cloned(), params, reply };
        let exchange = async {
            self.requests.send(request).await.map_err(|_| ControlError::Closed)?;
            replied.await.map_err(|_| ControlError::Closed)
        };
        match tokio::time::timeout(bound, exchange).await {
            Ok(Ok(Response { error: Some(error), .. })) => {
                Err(ControlError::Refused { command: method, reason: error.message })
            }
            Ok(Ok(response)) => C::response_from_value(response.result.unwrap_or_default()).map_err(strange),
            Ok(Err(closed)) => Err(closed),
            Err(_) => Err(ControlError::Silent { command: method, bound }),
        }
    }
}

/// What a reply is for.
#[derive(Debug)]
enum Pending<T> {
    Caller(oneshot::Sender<Response>),
    Own(T),
}

/// What comes in.
#[derive(Debug)]
pub enum Incoming<T> {
    /// An event.
    Event(Event),
    /// The reply to a command of the wire's owner.
    Reply(T, Response),
    /// The connection has ended.
    End,
}

/// The connection itself. Its owner drives it; `T` marks the owner's own commands.
#[derive(Debug)]
pub struct Wire<T> {
    connection: Connection<Event>,
    requests: mpsc::Receiver<Request>,
    pending: HashMap<CallId, Pending<T>>,
}

impl<T> Wire<T> {
    /// Connects to Chromium's browser-wide DevTools address.
    pub async fn connect(address: &str, bound: Duration) -> Result<(Self, Cdp), ControlError> {
        let connection = match tokio::time::timeout(bound, Connection::connect(address)).await {
            Ok(result) => result.map_err(|e| ControlError::Connect(Box::new(e)))?,
            Err(_) => return Err(ControlError::Silent { command: "WebSocket".into(), bound }),
        };
        let (sender, requests) = mpsc::channel(QUEUE);
        Ok((Self { connection, requests, pending: HashMap::new() }, Cdp { requests: sender }))
    }

    /// Sends a command of the owner's own, without waiting.
    pub fn submit<C: Command>(&mut self, session: Option<&SessionId>, command: C, mark: T) {
        if let Ok(params) = serde_json::to_value(&command) {
            self.send(command.identifier(), session.cloned(), params, Pending::Own(mark));
        }
    }

    fn send(&mut self, method: MethodId, session: Option<SessionId>, params: Value, pending: Pending<T>) {
        if self.pending.len() >= MAX_PENDING {
            // Callers that have given up leave their entry behind; the rest of them learn it by their channel's end.
            self.pending.retain(|_, p| !matches!(p, Pending::Caller(reply) if reply.is_closed()));
        }
        if self.pending.len() < MAX_PENDING
            && let Ok(id) = self.connection.submit_command(method, session, params)
        {
            self.pending.insert(id, pending);
        }
    }

    /// The next thing of interest to the owner; callers' commands and replies pass through meanwhile. Cancel-safe.
    pub async fn next(&mut self) -> Incoming<T> {
        loop {
            tokio::select! {
                Some(Request { method, session, params, reply }) = self.requests.recv() => {
                    self.send(method, session, params, Pending::Caller(reply));
                }
                message = self.connection.next() => match message {
                    Some(Ok(Message::Event(event))) => return Incoming::Event(event),
                    Some(Ok(Message::Response(response))) => match self.pending.remove(&response.id) {
                        Some(Pending::Own(mark)) => return Incoming::Reply(mark, response),
                        Some(Pending::Caller(reply)) => drop(reply.send(response)),
                        None => {}
                    },
                    Some(Err(CdpError::InvalidMessage(..))) => {} // neither event nor reply: not for us
                    Some(Err(_)) | None => return Incoming::End,
                },
            }
        }
    }
}
