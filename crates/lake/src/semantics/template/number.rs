//! Numbers by PostgreSQL's templates (`9,990.00`, `FM`, `S`, `PR` and so on).
//!
//! The walk over the template follows `NUM_processor` of PostgreSQL's `formatting.c`, whose
//! corners (a leading zero that is not shown, a sign that waits for the first digit) have no
//! shorter description than itself.

/// One part of a template.
#[derive(Debug, Clone, PartialEq)]
enum Part {
    Nine,
    Zero,
    Point,
    Comma,
    Currency,
    Minus,
    Plus,
    Sign,
    Ordinal(Case),
    /// `S` and `PR`, which are written where the digits say.
    Nothing,
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Upper,
    Lower,
}

/// Where the sign of `S` goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Anchor {
    Before,
    After,
}

/// A template as read.
#[derive(Debug, Clone)]
pub(super) struct NumberTemplate {
    parts: Vec<Part>,
    /// Digits before and behind the point.
    pre: usize,
    pub post: usize,
    has_point: bool,
    is_filled: bool,
    /// The first `0` before the point, and the last one of all, counted in digits.
    zero_start: Option<usize>,
    zero_end: usize,
    anchor: Option<Anchor>,
    has_brackets: bool,
    has_plus: bool,
    has_minus: bool,
}

impl NumberTemplate {
    /// # Errors
    /// Which pattern is not known or stands where it may not.
    pub fn parse(template: &str) -> Result<Self, String> {
        let mut read = Self {
            parts: Vec::new(),
            pre: 0,
            post: 0,
            has_point: false,
            is_filled: false,
            zero_start: None,
            zero_end: 0,
            anchor: None,
            has_brackets: false,
            has_plus: false,
            has_minus: false,
        };
        let mut anchored_at = 0;
        let mut rest = template;
        while let Some(first) = rest.chars().next() {
            let upper: String = rest.chars().take(4).collect::<String>().to_ascii_uppercase();
            let is = |pattern: &str| upper.starts_with(pattern);
            for unsupported in ["EEEE", "RN", "V"] {
                if is(unsupported) {
                    return Err(format!("the pattern {unsupported} of a number template is not offered"));
                }
            }
            let mut length = first.len_utf8();
            match first {
                '9' if read.has_point => read.digit(Part::Nine, true),
                '9' => read.digit(Part::Nine, false),
                '0' => {
                    if read.zero_start.is_none() && !read.has_point {
                        read.zero_start = Some(read.pre);
                    }
                    read.digit(Part::Zero, read.has_point);
                    read.zero_end = read.pre + read.post;
                }
                '.' | 'D' | 'd' => {
                    if read.has_point {
                        return Err("a number template has one decimal point".to_owned());
                    }
                    read.has_point = true;
                    read.parts.push(Part::Point);
                }
                ',' | 'G' | 'g' => read.parts.push(Part::Comma),
                'L' | 'l' => read.parts.push(Part::Currency),
                '"' => length = read.quoted(rest),
                '\\' if rest.starts_with("\\\"") => {
                    read.text("\"");
                    length = 2;
                }
                _ if is("FM") => (read.is_filled, length) = (true, 2),
                _ if is("MI") => {
                    read.has_minus = true;
                    read.parts.push(Part::Minus);
                    length = 2;
                }
                _ if is("PL") => {
                    read.has_plus = true;
                    read.parts.push(Part::Plus);
                    length = 2;
                }
                _ if is("SG") => {
                    (read.has_plus, read.has_minus) = (true, true);
                    read.parts.push(Part::Sign);
                    length = 2;
                }
                _ if is("PR") => {
                    read.has_brackets = true;
                    read.parts.push(Part::Nothing);
                    length = 2;
                }
                _ if is("TH") => {
                    let case = if first == 'T' { Case::Upper } else { Case::Lower };
                    read.parts.push(Part::Ordinal(case));
                    length = 2;
                }
                'S' | 's' => {
                    if read.anchor.is_some() {
                        return Err("a number template has one S".to_owned());
                    }
                    read.anchor = Some(if read.has_point { Anchor::After } else { Anchor::Before });
                    anchored_at = read.pre;
                    read.parts.push(Part::Nothing);
                }
                other => read.text(other.encode_utf8(&mut [0; 4])),
            }
            rest = &rest[length..];
        }
        if read.anchor.is_some() && (read.has_plus || read.has_minus || read.has_brackets) {
            return Err("S stands beside no other sign in a number template".to_owned());
        }
        if read.has_brackets && (read.has_plus || read.has_minus) {
            return Err("PR stands beside no other sign in a number template".to_owned());
        }
        if read.anchor == Some(Anchor::Before) && anchored_at == read.pre {
            read.anchor = Some(Anchor::After);
        }
        Ok(read)
    }

    fn digit(&mut self, part: Part, is_behind: bool) {
        match is_behind {
            true => self.post += 1,
            false => self.pre += 1,
        }
        self.parts.push(part);
    }

    fn text(&mut self, text: &str) {
        match self.parts.last_mut() {
            Some(Part::Text(last)) => last.push_str(text),
            _ => self.parts.push(Part::Text(text.to_owned())),
        }
    }

    /// Reads text in quotes and answers its length.
    fn quoted(&mut self, rest: &str) -> usize {
        let mut chars = rest.char_indices().skip(1);
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return at + 1,
                '\\' => {
                    if let Some((_, c)) = chars.next() {
                        self.text(c.encode_utf8(&mut [0; 4]));
                    }
                }
                c => self.text(c.encode_utf8(&mut [0; 4])),
            }
        }
        rest.len()
    }

    /// Writes a number. `digits` is its plain decimal text, already rounded to `post` digits
    /// behind the point.
    pub fn format(&self, digits: &str) -> String {
        let (negative, digits) = match digits.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, digits),
        };
        let whole = digits.find('.').unwrap_or(digits.len());
        let number: Vec<u8> = match whole > self.pre {
            true => {
                let mut filled = vec![b'#'; self.pre + self.post + 1];
                filled[self.pre] = b'.';
                if !self.has_point {
                    filled.truncate(self.pre);
                }
                filled
            }
            false => digits.bytes().collect(),
        };
        let mut writer = Writer {
            template: self,
            negative,
            spaces: self.pre.saturating_sub(whole),
            has_brackets: self.has_brackets,
            sign_written: false,
            last_relevant: None,
            begun: false,
            at: 0,
            current: 0,
            count: self.pre + self.post,
            number,
            out: String::new(),
        };
        writer.run();
        writer.out
    }
}

/// One number on its way through a template.
struct Writer<'a> {
    template: &'a NumberTemplate,
    negative: bool,
    /// Places before the first digit.
    spaces: usize,
    has_brackets: bool,
    sign_written: bool,
    /// The last digit that a filled template shows.
    last_relevant: Option<usize>,
    /// Whether a digit was written.
    begun: bool,
    /// The next digit of the number, and the next place of the template.
    at: usize,
    current: usize,
    /// Places in all, and one.
    count: usize,
    number: Vec<u8>,
    out: String,
}

impl Writer<'_> {
    fn run(&mut self) {
        let template = self.template;
        if template.has_plus || template.has_minus {
            self.sign_written = template.has_minus;
        } else {
            if !self.negative && template.is_filled {
                self.has_brackets = false;
            }
            self.sign_written = !self.negative && template.is_filled && template.anchor.is_none();
        }
        if template.is_filled && template.has_point {
            self.last_relevant = self.last_relevant();
        }
        // As PostgreSQL counts: one less than the places, unless all of them have a digit.
        let extra = usize::from(!self.sign_written && self.spaces == 0);
        self.count = (self.count + extra).saturating_sub(1);
        for part in &template.parts {
            self.part(part);
        }
    }

    fn last_relevant(&self) -> Option<usize> {
        let point = self.number.iter().position(|c| *c == b'.')?;
        let last = self.number.iter().rposition(|c| *c != b'0').unwrap_or(point).max(point);
        if self.template.zero_end > self.spaces {
            let zero = (self.number.len() - 1).min(self.template.zero_end - self.spaces);
            return Some(last.max(zero));
        }
        Some(last)
    }

    fn part(&mut self, part: &Part) {
        let is_filled = self.template.is_filled;
        match part {
            Part::Nine | Part::Zero | Part::Point => self.place(part),
            Part::Comma if self.begun => self.out.push(','),
            Part::Comma | Part::Minus | Part::Plus if is_filled && !self.shows(part) => {}
            Part::Comma => self.out.push(' '),
            Part::Minus => self.out.push(if self.negative { '-' } else { ' ' }),
            Part::Plus => self.out.push(if self.negative { ' ' } else { '+' }),
            Part::Sign => self.out.push(if self.negative { '-' } else { '+' }),
            Part::Currency => self.out.push(' '),
            Part::Ordinal(case) => self.ordinal(*case),
            Part::Text(text) => self.out.push_str(text),
            Part::Nothing => {}
        }
    }

    fn shows(&self, part: &Part) -> bool {
        match part {
            Part::Minus => self.negative,
            Part::Plus => !self.negative,
            _ => false,
        }
    }

    fn ordinal(&mut self, case: Case) {
        if self.number.first() == Some(&b'#') || self.negative || self.template.has_point {
            return;
        }
        let text = super::ordinal_suffix(&String::from_utf8_lossy(&self.number));
        match case {
            Case::Upper => self.out.push_str(&text.to_ascii_uppercase()),
            Case::Lower => self.out.push_str(text),
        }
    }

    /// Whether the zero before the point is left out.
    fn hides_zero(&self) -> bool {
        self.template.zero_start.is_none()
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.template.post != 0
    }

    fn ends_in_point(&self) -> bool {
        self.last_relevant.is_some_and(|last| self.number.get(last) == Some(&b'.'))
    }

    /// A digit or the point of the template.
    fn place(&mut self, part: &Part) {
        let template = self.template;
        let is_first_zero = template.zero_start == Some(self.current);
        if !self.sign_written
            && (self.current >= self.spaces || is_first_zero)
            && (!self.hides_zero() || self.ends_in_point())
        {
            self.sign();
        }
        let zeros_begun = template.zero_start.is_some_and(|start| start <= self.current);
        if self.current < self.spaces {
            if zeros_begun {
                self.out.push('0');
                self.begun = true;
            } else if !template.is_filled {
                self.out.push(' ');
            }
        } else {
            self.digit(part);
        }
        let mut end = self.count + usize::from(self.spaces > 0) + usize::from(template.has_point);
        if self.last_relevant == Some(self.at) {
            end = self.current;
        }
        if self.current + 1 == end {
            if self.sign_written && self.has_brackets {
                self.out.push(if self.negative { '>' } else { ' ' });
            } else if template.anchor == Some(Anchor::After) {
                self.out.push(if self.negative { '-' } else { '+' });
            }
        }
        self.current += 1;
    }

    fn sign(&mut self) {
        match self.template.anchor {
            Some(Anchor::Before) => self.out.push(if self.negative { '-' } else { '+' }),
            Some(Anchor::After) => return,
            None if self.has_brackets => self.out.push(if self.negative { '<' } else { ' ' }),
            None if self.negative => self.out.push('-'),
            None if !self.template.is_filled => self.out.push(' '),
            None => {}
        }
        self.sign_written = true;
    }

    fn digit(&mut self, part: &Part) {
        let Some(digit) = self.number.get(self.at).copied() else { return };
        if digit == b'.' {
            self.out.push('.');
        } else if self.last_relevant.is_some_and(|last| self.at > last) && *part != Part::Zero {
            // A trailing zero that a filled template leaves out.
        } else if self.hides_zero() {
            if !self.template.is_filled {
                self.out.push(' ');
            } else if self.ends_in_point() {
                self.out.push('0');
            }
        } else {
            self.out.push(char::from(digit));
            self.begun = true;
        }
        self.at += 1;
    }
}
