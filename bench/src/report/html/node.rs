//! The report as a tree of named values in the order of its fields, for sections that no page knows by name.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A value of the report.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Absent,
    Truth(bool),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    /// Members in the order in which they were written.
    Object(Vec<(String, Node)>),
}

impl Node {
    /// The member of this name; absent in what is no object.
    pub(super) fn member(&self, name: &str) -> &Self {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name).map_or(&Self::Absent, |(_, value)| value)
            }
            _ => &Self::Absent,
        }
    }

    /// Whether it is one value and no collection.
    pub(super) fn is_plain(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Object(_))
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Absent)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Truth(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(node) = list.next_element()? {
            all.push(node);
        }
        Ok(Node::List(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = map.next_entry()? {
            all.push(member);
        }
        Ok(Node::Object(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_kept() {
        let node: Node = serde_json::from_str(r#"{"b":1,"a":[-2,null,true,"x"],"c":{}}"#).unwrap();
        let list =
            Node::List(vec![Node::Number(-2.0), Node::Absent, Node::Truth(true), Node::Text("x".into())]);
        assert_eq!(node.member("a"), &list);
        let Node::Object(members) = node else { panic!("no object") };
        assert_eq!(members.iter().map(|(key, _)| key.as_str()).collect::<String>(), "bac");
    }
}
