//! Lists of pairs in the format of LFW: `name i j` for two images of one person, `name i other j` for two people.
//!
//! An image is called `name_0001` (the number with four digits), the person is what stands before the number. A first line
//! of two numbers gives folds and pairs of either kind per fold; one number gives pairs of either kind; no such line is
//! one fold.

use std::path::Path;

use crate::error::Error;
use crate::settings::read_text;

/// Two images and whether they show one person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Name of the first image, without its extension.
    pub first: String,
    /// Name of the second image.
    pub second: String,
    /// They show one person.
    pub same: bool,
    /// Part of the list it belongs to, from 0.
    pub fold: usize,
}

/// A list of pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pairs {
    /// In the order of the file.
    pub list: Vec<Pair>,
    /// Number of folds, at least 1.
    pub folds: usize,
}

impl Pairs {
    /// Reads a file.
    ///
    /// Errors: [`Error::Io`]; [`Error::Input`] with the line that is wrong.
    pub fn load(path: &Path) -> Result<Pairs, Error> {
        let text = read_text(path)?;
        Pairs::parse(&text).map_err(|e| Error::Input(format!("{}: {e}", path.display())))
    }

    /// Parses a file's text.
    pub fn parse(text: &str) -> Result<Pairs, String> {
        let mut lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty())
            .peekable();
        let header: Option<Vec<usize>> = lines.peek().and_then(|(_, line)| {
            let numbers: Option<Vec<usize>> =
                line.split_whitespace().map(|t| t.parse().ok()).collect();
            numbers.filter(|n| (1..=2).contains(&n.len()))
        });
        if header.is_some() {
            lines.next();
        }
        let mut list = Vec::new();
        for (number, line) in lines {
            list.push(pair(line).map_err(|e| format!("line {}: {e}", number + 1))?);
        }
        if list.is_empty() {
            return Err("no pair".into());
        }
        let folds = match header.as_deref() {
            Some([folds, of_kind]) => (*folds, *of_kind),
            Some([of_kind]) => (1, *of_kind),
            _ => return Ok(Pairs { list, folds: 1 }),
        };
        let wanted = folds.0.saturating_mul(folds.1).saturating_mul(2);
        if wanted != list.len() {
            return Err(format!(
                "{} pairs, the first line promises {wanted}",
                list.len()
            ));
        }
        for (index, pair) in list.iter_mut().enumerate() {
            pair.fold = index / (2 * folds.1);
        }
        Ok(Pairs {
            list,
            folds: folds.0,
        })
    }
}

fn pair(line: &str) -> Result<Pair, String> {
    let image = |name: &str, number: &str| match number.parse::<u32>() {
        Ok(number) => Ok(format!("{name}_{number:04}")),
        Err(_) => Err(format!("'{number}' is not the number of an image")),
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let (first, second, same) = match words[..] {
        [name, i, j] => (image(name, i)?, image(name, j)?, true),
        [a, i, b, j] => (image(a, i)?, image(b, j)?, a == b),
        _ => return Err("expected `name i j` or `name i other j`".into()),
    };
    Ok(Pair {
        first,
        second,
        same,
        fold: 0,
    })
}

/// The person of an image: its name up to the last underscore when a number follows, else the whole name.
pub fn person(image: &str) -> &str {
    match image.rsplit_once('_') {
        Some((name, number))
            if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) =>
        {
            name
        }
        _ => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_and_names() {
        let pairs = Pairs::parse("2\t1\nA_B\t1\t4\nA_B 1 C 2\nD 1 2\n\nD 10 A_B 3\n").unwrap();
        assert_eq!(pairs.folds, 2);
        assert_eq!(pairs.list[0].second, "A_B_0004");
        assert!(pairs.list[0].same && !pairs.list[1].same);
        assert_eq!(pairs.list[3].first, "D_0010");
        assert_eq!(
            pairs.list.iter().map(|p| p.fold).collect::<Vec<_>>(),
            [0, 0, 1, 1]
        );
        assert_eq!(Pairs::parse("A 1 2\n").unwrap().folds, 1);
        assert_eq!(person("A_B_0012"), "A_B");
        assert_eq!(person("portrait_of"), "portrait_of");
    }

    #[test]
    fn wrong_lists_are_named() {
        for (text, why) in [
            ("", "no pair"),
            ("2 300\n", "no pair"),
            ("A 1\n", "line 1"),
            ("1 1\nA 1 2\nA x B 1\n", "line 3"),
            ("10 300\nA 1 2\n", "promises 6000"),
            ("99999999999 99999999999\nA 1 2\n", "promises"),
        ] {
            let error = Pairs::parse(text).unwrap_err();
            assert!(error.contains(why), "{text:?}: {error}");
        }
    }
}
