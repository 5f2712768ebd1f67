//! Typed access to the attributes of a node.

use super::proto::{AttributeProto, NodeProto, TensorProto};

impl NodeProto {
    /// The attribute of that name.
    pub fn attr(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|a| a.name == name)
    }
    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attr(name).map(|a| a.i)
    }
    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attr(name).map(|a| a.f)
    }
    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attr(name).map(|a| a.ints.as_slice())
    }
    /// A list of floats.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.attr(name).map(|a| a.floats.as_slice())
    }
    /// A string; bytes that are not UTF-8 are replaced.
    pub fn string(&self, name: &str) -> Option<String> {
        self.attr(name)
            .map(|a| String::from_utf8_lossy(&a.s).into_owned())
    }
    /// A tensor.
    pub fn tensor(&self, name: &str) -> Option<&TensorProto> {
        self.attr(name).and_then(|a| a.t.as_ref())
    }
    /// What the node is called in messages and in `--layer`: its name, or else its first output.
    pub fn label(&self) -> String {
        match (self.name.is_empty(), self.output.first()) {
            (false, _) => self.name.clone(),
            (true, Some(output)) if !output.is_empty() => output.clone(),
            _ => format!("unnamed {}", self.op_type),
        }
    }
    /// The name of an input; none when it is absent or left out.
    pub fn input_name(&self, index: usize) -> Option<&str> {
        self.input
            .get(index)
            .map(String::as_str)
            .filter(|name| !name.is_empty())
    }
}
