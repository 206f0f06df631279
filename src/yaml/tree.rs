//! From the parser's events to a tree.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, StrInput};

use super::{Key, MAX_DEPTH, MAX_NODES, Node, Place, Problem, Value, scalar, syntax, variables};

/// The value of a variable.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Builds the tree of the one document in `text`; without `env`, variables are just text.
pub(crate) fn build(file: &str, text: &str, env: Option<Env<'_>>) -> Result<Node, Vec<Problem>> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.disallow_directives = true;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut builder = Builder {
        file,
        text,
        env,
        parser: Parser::new_from_str_with_options(text, options),
        nodes: 0,
        anchors: HashMap::new(),
        problems: Vec::new(),
    };
    let root = builder.document();
    match root {
        Ok(root) if builder.problems.is_empty() => Ok(root),
        _ => {
            builder.problems.sort();
            Err(builder.problems)
        }
    }
}

struct Builder<'a> {
    file: &'a str,
    text: &'a str,
    env: Option<Env<'a>>,
    parser: Parser<'a, StrInput<'a>>,
    nodes: usize,
    /// Complete anchored nodes and how many nodes each holds, by the parser's number.
    anchors: HashMap<usize, (Node, usize)>,
    problems: Vec<Problem>,
}

/// The rest of the file cannot be read; the problem is already noted.
struct Stop;

impl<'a> Builder<'a> {
    fn document(&mut self) -> Result<Node, Stop> {
        let root = loop {
            match self.event()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                (Event::StreamEnd, _) => return self.stop(Place::START, EMPTY),
                (event, span) => break self.node(event, span, 0)?,
            }
        };
        if root.value == Value::Null {
            return self.stop(Place::START, EMPTY);
        }
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(..), span) => {
                    let message = "a second document begins here, but a file holds one: \
                                   remove the `---`, or what follows it";
                    return self.stop(place(span), message);
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Stop> {
        let at = place(span);
        self.count(1, at)?;
        let before = self.nodes;
        let (anchor, tag) = (event.anchor_id(), event.tag().is_some());
        let (value, plain) = match event {
            Event::Scalar(text, style, ..) => self.scalar(text, style, span),
            Event::SequenceStart(..) => (self.list(at, depth)?, None),
            Event::MappingStart(..) => (self.map(at, depth)?, None),
            Event::Alias(id) => return self.alias(id, at),
            _ => return self.stop(at, "a value is missing here: write one"),
        };
        if tag {
            self.problem(
                at,
                "tags (`!…`) mean nothing here: remove it, or put the value in quotes",
            );
        }
        let node = Node { place: at, value, plain };
        if let Some(id) = anchor {
            self.anchors.insert(id, (node.clone(), self.nodes - before + 1));
        }
        Ok(node)
    }

    fn scalar(
        &mut self,
        text: Cow<'a, str>,
        style: ScalarStyle,
        span: Span,
    ) -> (Value, Option<String>) {
        let expanded = match self.env {
            Some(env) => variables::expand(&text, env),
            None => Ok(text.into_owned()),
        };
        let text = match expanded {
            Ok(text) => text,
            Err(wrong) => {
                let source = span.slice(self.text).unwrap_or_default();
                for variables::Unexpanded { reference, message } in wrong {
                    let before = source.split_once(reference).map_or("", |(before, _)| before);
                    self.problem(place(span).after(before), message);
                }
                return (Value::Null, None);
            }
        };
        match style {
            ScalarStyle::Plain => (scalar::resolve(&text), Some(text)),
            _ => (Value::Text(text), None),
        }
    }

    fn list(&mut self, at: Place, depth: usize) -> Result<Value, Stop> {
        let depth = self.deeper(depth, at)?;
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node(event, span, depth)?),
            }
        }
    }

    fn map(&mut self, at: Place, depth: usize) -> Result<Value, Stop> {
        let depth = self.deeper(depth, at)?;
        let mut entries = Vec::new();
        let mut first = HashMap::new();
        loop {
            let key = match self.event()? {
                (Event::MappingEnd, _) => return Ok(Value::Map(entries)),
                (event, span) => self.key(event, span, depth)?,
            };
            let (event, span) = self.event()?;
            let value = self.node(event, span, depth)?;
            let Some(key) = key else { continue };
            match first.get(&key.text) {
                None => {
                    first.insert(key.text.clone(), key.place);
                    entries.push((key, value));
                }
                Some(first) => {
                    let text = super::shorten(&key.text);
                    let message =
                        format!("the key {text:?} was already given at {first}: keep one of them");
                    self.problem(key.place, message);
                }
            }
        }
    }

    /// A key, or nothing if it is none; that is noted.
    fn key(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Option<Key>, Stop> {
        let place = place(span);
        if let Event::Scalar(text, ..) = &event
            && !span.is_empty()
        {
            self.count(1, place)?;
            return Ok(Some(Key { place, text: text.to_string() }));
        }
        self.node(event, span, depth)?;
        self.problem(place, "a key must be text: write `key: value`");
        Ok(None)
    }

    fn alias(&mut self, id: usize, at: Place) -> Result<Node, Stop> {
        let Some((node, nodes)) = self.anchors.get(&id).cloned() else {
            return self.stop(at, "this alias stands inside the value that it names: write it out");
        };
        self.count(nodes, at)?;
        Ok(Node { place: at, ..node })
    }

    fn deeper(&mut self, depth: usize, at: Place) -> Result<usize, Stop> {
        if depth >= MAX_DEPTH { self.stop(at, syntax::too_deep()) } else { Ok(depth + 1) }
    }

    fn count(&mut self, nodes: usize, at: Place) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return self.stop(at, format!("more than {MAX_NODES} values, the most that is read"));
        }
        Ok(())
    }

    fn event(&mut self) -> Result<(Event<'a>, Span), Stop> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let (place, message) = syntax::explain(self.text, &error);
                self.stop(place, message)
            }
            None => self.stop(Place::START, "the file ends too early: is it complete?"),
        }
    }

    fn stop<T>(&mut self, place: Place, message: impl Into<String>) -> Result<T, Stop> {
        self.problem(place, message);
        Err(Stop)
    }

    fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.push(Problem::new(self.file, place, message));
    }
}

const EMPTY: &str = "the file is empty: write at least the required keys";

fn place(span: Span) -> Place {
    Place { line: span.start.line(), column: span.start.col() + 1 }
}
