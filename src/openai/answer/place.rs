//! Where in an answer's document a token stands, and so what it means to us.

use super::counts::Count;
use crate::openai::json::Token;

/// Brackets within which each place is known by itself. What is looked for deeper is output, wherever it stands there.
const KNOWN_DEPTH: usize = 6;

/// What a value means, by the names on the way to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spot {
    /// The document itself.
    Document,
    /// An element of a document that is a list.
    Element,
    /// `usage`, at the top or in an envelope.
    Usage,
    /// Its `prompt_tokens_details` or `input_tokens_details`.
    Details,
    /// One of its numbers.
    Count(Count),
    /// An object that may hold what else stands at the top: `response` and `message`, of OpenAI's responses and Anthropic's
    /// messages.
    Envelope,
    /// `choices`: holds output, in OpenAI's completions.
    Choices,
    /// One of them.
    Choice,
    ChoiceDelta,
    ToolCalls,
    FinishReason,
    /// `delta` at the top: is output or holds it, in OpenAI's responses and Anthropic's messages.
    Delta,
    StopReason,
    /// `content_block`: holds the beginning of a part of the output, in Anthropic's.
    Block,
    BlockType,
    /// A string is output.
    OutputText,
    /// Anything else in what holds output.
    InOutput,
    /// A part of an image, at the top.
    Image,
    /// The model's name, at the top or in an envelope.
    Model,
    /// By what the answer, or what it reports, is known: at the top or in an envelope.
    Id,
    Type,
    Object,
    /// `error`, at the top or in an envelope.
    Error,
    ErrorCode,
    ErrorType,
    Timings,
    Fingerprint,
    /// Nothing is looked for here.
    Other,
}

impl Spot {
    /// What stands under this name in the object that is here.
    fn member(self, name: &[u8]) -> Spot {
        match self {
            Spot::Document => at_top(name),
            Spot::Envelope => in_envelope(name),
            Spot::Usage => in_usage(name),
            Spot::Details if name == b"cached_tokens" => Spot::Count(Count::Cached),
            Spot::Error => in_error(name),
            Spot::Choice if name == b"delta" => Spot::ChoiceDelta,
            Spot::Choice if name == b"finish_reason" => Spot::FinishReason,
            Spot::Choice if name == b"logprobs" => Spot::Other,
            Spot::ChoiceDelta if name == b"tool_calls" => Spot::ToolCalls,
            Spot::Delta if name == b"stop_reason" => Spot::StopReason,
            Spot::Block if name == b"type" => Spot::BlockType,
            _ if self.holds_output() => in_output(name),
            _ => Spot::Other,
        }
    }

    /// What stands in the list that is here.
    fn element(self) -> Spot {
        match self {
            Spot::Document => Spot::Element,
            Spot::Choices => Spot::Choice,
            _ if self.holds_output() => Spot::InOutput,
            _ => Spot::Other,
        }
    }

    /// Whether a string of the right name is output wherever it stands in here.
    fn holds_output(self) -> bool {
        matches!(
            self,
            Spot::Choices
                | Spot::Choice
                | Spot::ChoiceDelta
                | Spot::ToolCalls
                | Spot::FinishReason
                | Spot::Delta
                | Spot::StopReason
                | Spot::Block
                | Spot::BlockType
                | Spot::OutputText
                | Spot::InOutput
        )
    }

    /// Whether anything is looked for in a bracket that is here.
    pub(super) fn is_of_interest(self) -> bool {
        self.holds_output()
            || matches!(self, Spot::Document | Spot::Envelope | Spot::Usage | Spot::Details | Spot::Error)
    }

    /// Whether nothing but its end is of interest.
    pub(super) fn is_dull(self) -> bool {
        matches!(self, Spot::Other | Spot::InOutput | Spot::Id)
    }
}

fn at_top(name: &[u8]) -> Spot {
    match name {
        b"choices" => Spot::Choices,
        b"delta" => Spot::Delta,
        b"content_block" => Spot::Block,
        b"partial_image_b64" | b"b64_json" => Spot::Image,
        b"response" | b"message" => Spot::Envelope,
        b"type" => Spot::Type,
        b"object" => Spot::Object,
        b"code" => Spot::ErrorCode,
        b"error_type" => Spot::ErrorType,
        b"timings" => Spot::Timings,
        b"system_fingerprint" => Spot::Fingerprint,
        _ => in_envelope(name),
    }
}

fn in_envelope(name: &[u8]) -> Spot {
    match name {
        b"usage" => Spot::Usage,
        b"model" => Spot::Model,
        b"id" => Spot::Id,
        b"error" => Spot::Error,
        _ => Spot::Other,
    }
}

fn in_usage(name: &[u8]) -> Spot {
    match name {
        b"prompt_tokens" => Spot::Count(Count::Prompt),
        b"completion_tokens" => Spot::Count(Count::Completion),
        b"input_tokens" => Spot::Count(Count::Input),
        b"output_tokens" => Spot::Count(Count::Output),
        b"cache_read_input_tokens" => Spot::Count(Count::CacheRead),
        b"cache_creation_input_tokens" => Spot::Count(Count::CacheCreation),
        b"prompt_tokens_details" | b"input_tokens_details" => Spot::Details,
        _ => Spot::Other,
    }
}

fn in_error(name: &[u8]) -> Spot {
    match name {
        b"code" => Spot::ErrorCode,
        b"type" => Spot::ErrorType,
        _ => Spot::Other,
    }
}

fn in_output(name: &[u8]) -> Spot {
    match name {
        b"content" | b"text" | b"reasoning" | b"reasoning_content" | b"refusal" | b"arguments"
        | b"thinking" | b"partial_json" | b"transcript" => Spot::OutputText,
        _ => Spot::InOutput,
    }
}

/// The way to what is read.
#[derive(Debug)]
pub(super) struct Place {
    /// What the value means that is being read within so many brackets.
    spots: [Spot; KNOWN_DEPTH + 1],
    /// The same of one that stands deeper.
    deep: Spot,
}

/// One token, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub token: Token,
    /// What the value means that the token is, begins or ends, or that of this key.
    pub spot: Spot,
    /// Brackets around that value.
    pub depth: u64,
    /// What a key, string or word says.
    pub text: &'a [u8],
}

impl Seen<'_> {
    /// Whether another list or object in its place would change nothing, not even what is known of places within it.
    pub(super) fn may_be_any(&self) -> bool {
        self.spot == Spot::Other && self.depth < KNOWN_DEPTH as u64
    }
}

impl Place {
    pub(super) fn new() -> Place {
        let mut spots = [Spot::Other; KNOWN_DEPTH + 1];
        if let Some(outermost) = spots.first_mut() {
            *outermost = Spot::Document;
        }
        Place { spots, deep: Spot::InOutput }
    }

    /// Where this token stands, which has just been read, and behind which so many brackets are open.
    pub(super) fn see<'a>(&mut self, token: Token, open: u64, text: &'a [u8]) -> Seen<'a> {
        let mut depth = open;
        if matches!(token, Token::Open(_)) {
            depth = open.saturating_sub(1);
            self.set(open, self.at(depth).element());
        } else if token == Token::Key {
            self.set(open, self.at(open.saturating_sub(1)).member(text));
        }
        Seen { token, spot: self.at(depth), depth, text }
    }

    fn at(&self, depth: u64) -> Spot {
        usize::try_from(depth).ok().and_then(|depth| self.spots.get(depth)).copied().unwrap_or(self.deep)
    }

    fn set(&mut self, depth: u64, spot: Spot) {
        let place = usize::try_from(depth).ok().and_then(|depth| self.spots.get_mut(depth));
        *place.unwrap_or(&mut self.deep) = spot;
    }
}
