//! The life of one stream.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, Fuse, StreamExt as _};
use levada_bus::port::{
    AckOutcome, Consumer, PortError, PullLimits, Received, SubscriptionPort, SubscriptionSpec,
};
use levada_core::{Quota, QuotaOwner, ResourceName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Answer;
use super::ledger::{Account, FlowLimits, Room};
use crate::ack_id::AckIds;
use crate::api::{Call, PubsubApi};
use crate::convert;
use crate::error::ApiError;
use crate::limits;
use crate::messages::pb;
use crate::messages::pb::streaming_pull_response::{
    AcknowledgeConfirmation, ModifyAckDeadlineConfirmation, SubscriptionProperties,
};
use crate::metrics;
use crate::subscriber::{Batch, require_pull};

/// Below the 4 MiB that gRPC clients take unless they are told otherwise; a larger message
/// travels alone.
const MAX_RESPONSE_BYTES: usize = 2 << 20;
const MAX_RESPONSE_MESSAGES: u64 = 1_000;
/// A pull is asked again after this; nothing depends on it but how long a forgotten one lives.
const PULL_WAIT: Duration = Duration::from_secs(60);
/// The first request must come within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// Acknowledgements that may wait while others are being made durable.
const MAX_WAITING_ACKS: usize = 100_000;
/// A client that does not read what was confirmed to it is not read from either.
const MAX_WAITING_RESPONSES: usize = 16;

type Requests = Fuse<BoxStream<'static, Result<pb::StreamingPullRequest, Status>>>;
type Pull = BoxFuture<'static, Result<Vec<Received>, PortError>>;
type Acks = BoxFuture<'static, Result<pb::StreamingPullResponse, ApiError>>;

/// Runs a stream to its end; `Ok` when the client ended it.
pub(super) async fn run(
    api: PubsubApi,
    call: Call,
    mut requests: Requests,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), ApiError> {
    let _slot = api.streams.slot()?;
    let _place = api.wait(&call, Quota::Streams)?;
    let _open = metrics::OpenStream::new();
    let first = match tokio::time::timeout(FIRST_REQUEST, requests.next()).await {
        Ok(Some(Ok(first))) => first,
        Ok(_) => return Ok(()),
        Err(_) => {
            return Err(ApiError::new(
                Code::DeadlineExceeded,
                "The first request of the stream did not come in time.",
            ));
        }
    };
    let mut session = Session::open(api, &call, first)?;
    let aged = Instant::now() + session.api.config.max_stream_age;
    let ends = call.deadline.map_or(aged, |deadline| deadline.min(aged));
    let gate = session.api.clone();
    tokio::select! {
        biased;
        error = gate.revoked(&call) => Err(error),
        ended = session.serve(&mut requests, answers) => ended,
        () = tokio::time::sleep_until(ends) => Err(try_again()),
    }
}

fn try_again() -> ApiError {
    ApiError::unavailable("The service was unable to fulfill your request. Please try again.")
}

struct Session {
    api: PubsubApi,
    name: ResourceName,
    owner: QuotaOwner,
    port: Arc<dyn SubscriptionPort>,
    spec: Arc<SubscriptionSpec>,
    ack_ids: AckIds,
    deadline: Duration,
    account: Account,
    /// Protocol version 1 and later.
    keepalive: bool,
    answered_at: Instant,
    pull: Option<Pull>,
    acks: Option<Acks>,
    waiting: Waiting,
    out: VecDeque<pb::StreamingPullResponse>,
}

/// What the client asked for while something before it was under way.
#[derive(Default)]
struct Waiting {
    acks: Vec<String>,
    deadlines: Vec<(String, Duration)>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.acks.len() + self.deadlines.len()
    }
}

impl Session {
    fn open(api: PubsubApi, call: &Call, first: pb::StreamingPullRequest) -> Result<Self, ApiError> {
        if first.subscription.is_empty() {
            return Err(ApiError::invalid("The first request of a stream must name the subscription."));
        }
        let port = api.open_to_consume(call, &first.subscription)?.port;
        let spec = port.spec();
        require_pull(&spec)?;
        let seconds = first.stream_ack_deadline_seconds;
        limits::within("stream_ack_deadline_seconds", seconds.into(), 10, 600)?;
        let positive = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        let flow = FlowLimits {
            messages: positive(first.max_outstanding_messages),
            bytes: positive(first.max_outstanding_bytes),
        };
        let account = Account::open(api.streams.ledger(&spec.name), &first.client_id, flow);
        let mut session = Self {
            name: spec.name.clone(),
            owner: call.owner(),
            ack_ids: AckIds::of(&spec.name),
            deadline: Duration::from_secs(seconds.unsigned_abs().into()),
            keepalive: first.protocol_version >= 1,
            answered_at: Instant::now(),
            api,
            port,
            spec,
            account,
            pull: None,
            acks: None,
            waiting: Waiting::default(),
            out: VecDeque::new(),
        };
        session.take_acks(first)?;
        // Tells the client at once how the subscription delivers.
        session.out.push_back(session.response());
        Ok(session)
    }

    async fn serve(
        &mut self,
        requests: &mut Requests,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), ApiError> {
        let api = self.api.clone();
        let mut drained = std::pin::pin!(api.drained());
        let mut open = true;
        let mut changed = watch(&self.port);
        self.refresh()?;
        loop {
            self.start_acks();
            if !open && self.acks.is_none() && self.out.is_empty() {
                return Ok(());
            }
            let room = self.start_pull(open);
            let full_until = match room {
                Room::Full { until } => Some(until),
                Room::Free { .. } => None,
            };
            let account_changed = self.account.changed();
            let idle_at = self.answered_at + self.api.config.keepalive;
            let may_read =
                open && self.waiting.len() < MAX_WAITING_ACKS && self.out.len() < MAX_WAITING_RESPONSES;
            tokio::select! {
                request = requests.next(), if may_read => match request {
                    Some(Ok(request)) => self.take(request)?,
                    // A cancelled call looks like a broken request stream.
                    Some(Err(_)) | None => open = false,
                },
                response = wait(&mut self.acks) => {
                    self.acks = None;
                    self.confirm(response?);
                }
                pulled = wait(&mut self.pull) => {
                    self.pull = None;
                    self.deliver(pulled?);
                }
                permit = answers.reserve(), if !self.out.is_empty() => {
                    let Ok(permit) = permit else { return Ok(()) };
                    if let Some(response) = self.out.pop_front() {
                        self.answered_at = Instant::now();
                        permit.send(Ok(response));
                    }
                }
                () = &mut changed => {
                    changed = watch(&self.port);
                    self.refresh()?;
                }
                () = account_changed.notified(), if full_until.is_some() => {}
                () = until(full_until), if full_until.is_some() => {}
                () = tokio::time::sleep_until(idle_at), if self.keepalive && self.out.is_empty() => {
                    self.out.push_back(self.response());
                }
                () = &mut drained => return Err(try_again()),
            }
        }
    }

    /// An empty response; each one tells the properties, since clients read them from each.
    fn response(&self) -> pb::StreamingPullResponse {
        pb::StreamingPullResponse {
            subscription_properties: Some(SubscriptionProperties {
                exactly_once_delivery_enabled: self.spec.exactly_once,
                message_ordering_enabled: self.spec.ordered,
            }),
            ..Default::default()
        }
    }

    /// Looks at the subscription again.
    fn refresh(&mut self) -> Result<(), ApiError> {
        self.port = self.api.bus.subscription(&self.name)?;
        let spec = self.port.spec();
        require_pull(&spec)?;
        let properties = |spec: &SubscriptionSpec| (spec.exactly_once, spec.ordered);
        let tells = properties(&spec) != properties(&self.spec);
        self.spec = spec;
        if tells {
            self.out.push_back(self.response());
        }
        Ok(())
    }

    /// Takes a request after the first.
    fn take(&mut self, request: pb::StreamingPullRequest) -> Result<(), ApiError> {
        for (set, field) in [
            (!request.subscription.is_empty(), "subscription"),
            (request.max_outstanding_messages != 0, "max_outstanding_messages"),
            (request.max_outstanding_bytes != 0, "max_outstanding_bytes"),
            (request.protocol_version != 0, "protocol_version"),
        ] {
            if set {
                return Err(ApiError::invalid(format!(
                    "The field {field} can only be set in the first request of a stream."
                )));
            }
        }
        if request.stream_ack_deadline_seconds != 0 {
            let seconds = request.stream_ack_deadline_seconds;
            limits::within("stream_ack_deadline_seconds", seconds.into(), 10, 600)?;
            self.deadline = Duration::from_secs(seconds.unsigned_abs().into());
        }
        self.take_acks(request)
    }

    fn take_acks(&mut self, request: pb::StreamingPullRequest) -> Result<(), ApiError> {
        let (ids, seconds) = (request.modify_deadline_ack_ids, request.modify_deadline_seconds);
        if ids.len() != seconds.len() {
            return Err(ApiError::invalid(format!(
                "Size of modify_deadline_ack_ids ({}) does not match size of modify_deadline_seconds ({}).",
                ids.len(),
                seconds.len()
            )));
        }
        if !self.spec.exactly_once {
            self.ack_ids.read_all(&request.ack_ids)?;
            self.ack_ids.read_all(&ids)?;
        }
        for (id, seconds) in ids.into_iter().zip(seconds) {
            limits::within("modify_deadline_seconds", seconds.into(), 0, 600)?;
            self.waiting.deadlines.push((id, Duration::from_secs(seconds.unsigned_abs().into())));
        }
        self.waiting.acks.extend(request.ack_ids);
        Ok(())
    }

    /// Hands what waits to the bus: longer leases first, so that they hold while
    /// acknowledgements are made durable; messages given back last.
    fn start_acks(&mut self) {
        if self.acks.is_some() || self.waiting.len() == 0 {
            return;
        }
        let Waiting { acks, deadlines } = std::mem::take(&mut self.waiting);
        let (back, longer): (Vec<_>, Vec<_>) =
            deadlines.into_iter().partition(|(_, deadline)| deadline.is_zero());
        let (api, port, spec) = (self.api.clone(), self.port.clone(), self.spec.clone());
        let response = self.response();
        self.acks = Some(Box::pin(async move {
            let mut acked = AcknowledgeConfirmation::default();
            let mut modified = ModifyAckDeadlineConfirmation::default();
            modify(&api, &port, &spec, longer, &mut modified).await?;
            if !acks.is_empty() {
                let batch = Batch::read(&spec, acks)?;
                let ids = batch.valid();
                let outcomes = port.acknowledge(ids.clone()).await?;
                api.streams.released(&spec.name, &ids);
                for (text, outcome) in batch.outcomes(outcomes) {
                    match outcome {
                        AckOutcome::Done => acked.ack_ids.push(text),
                        AckOutcome::InvalidAckId => acked.invalid_ack_ids.push(text),
                        AckOutcome::TransientFailure => acked.temporary_failed_ack_ids.push(text),
                    }
                }
            }
            modify(&api, &port, &spec, back, &mut modified).await?;
            if !spec.exactly_once {
                return Ok(pb::StreamingPullResponse::default());
            }
            Ok(pb::StreamingPullResponse {
                acknowledge_confirmation: (acked != AcknowledgeConfirmation::default()).then_some(acked),
                modify_ack_deadline_confirmation: (modified != ModifyAckDeadlineConfirmation::default())
                    .then_some(modified),
                ..response
            })
        }));
    }

    fn confirm(&mut self, response: pb::StreamingPullResponse) {
        if response.acknowledge_confirmation.is_some() || response.modify_ack_deadline_confirmation.is_some()
        {
            self.out.push_back(response);
        }
    }

    /// Starts a pull where there is room and the client keeps up.
    fn start_pull(&mut self, open: bool) -> Room {
        let room = self.account.room(Instant::now());
        if let Room::Free { messages, bytes } = room
            && open
            && self.pull.is_none()
            && self.out.is_empty()
        {
            let most = self.api.answer_bytes(&self.owner, MAX_RESPONSE_BYTES);
            let small = |n: u64, max: u64| usize::try_from(n.min(max)).unwrap_or(usize::MAX);
            let limits = PullLimits {
                max_messages: small(messages, MAX_RESPONSE_MESSAGES),
                max_bytes: small(bytes, most as u64),
                wait: PULL_WAIT,
                ack_deadline: Some(self.deadline),
                consumer: Consumer::Stream(self.account.number()),
            };
            let port = self.port.clone();
            self.pull = Some(Box::pin(async move { port.pull(limits).await }));
        }
        room
    }

    fn deliver(&mut self, received: Vec<Received>) {
        if received.is_empty() {
            return;
        }
        metrics::delivered("stream", received.len());
        let sizes: Vec<_> = received.iter().map(|message| (message.ack_id, size(message))).collect();
        self.account.add(&sizes, Instant::now() + self.deadline);
        let messages = received
            .into_iter()
            .map(|message| convert::received_out(message, self.ack_ids, &self.spec))
            .collect();
        let response = pb::StreamingPullResponse { received_messages: messages, ..self.response() };
        self.out.push_back(response);
    }
}

fn size(received: &Received) -> u64 {
    let message = &received.message;
    let key = message.ordering_key.as_ref().map_or(0, |key| key.len());
    (message.body.len() + message.attributes.packed().len() + key) as u64
}

async fn modify(
    api: &PubsubApi,
    port: &Arc<dyn SubscriptionPort>,
    spec: &Arc<SubscriptionSpec>,
    deadlines: Vec<(String, Duration)>,
    modified: &mut ModifyAckDeadlineConfirmation,
) -> Result<(), ApiError> {
    if deadlines.is_empty() {
        return Ok(());
    }
    let (texts, durations): (Vec<_>, Vec<_>) = deadlines.into_iter().unzip();
    let ack_ids = AckIds::of(&spec.name);
    let pairs: Vec<_> = texts
        .iter()
        .zip(durations)
        .filter_map(|(text, duration)| Some((ack_ids.read(text)?, duration)))
        .collect();
    let batch = Batch::read(spec, texts)?;
    let outcomes = port.modify_ack_deadlines(pairs.clone()).await?;
    api.book(&spec.name, &pairs);
    for (text, outcome) in batch.outcomes(outcomes) {
        match outcome {
            AckOutcome::Done => modified.ack_ids.push(text),
            AckOutcome::InvalidAckId => modified.invalid_ack_ids.push(text),
            AckOutcome::TransientFailure => modified.temporary_failed_ack_ids.push(text),
        }
    }
    Ok(())
}

/// Ends when the subscription changes.
fn watch(port: &Arc<dyn SubscriptionPort>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let port = port.clone();
    Box::pin(async move { port.changed().await })
}

/// The result of what is under way; never, when nothing is.
async fn wait<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
