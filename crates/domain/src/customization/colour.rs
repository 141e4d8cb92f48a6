//! Colours as people write them for a screen, and how well one can be read on another.

use serde::Serialize;

/// An opaque sRGB colour. It is written `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Colour {
    red: u8,
    green: u8,
    blue: u8,
}

/// What text of normal size needs to be read by everybody (WCAG 2.2, success criterion 1.4.3, level AA).
pub const ENOUGH_CONTRAST: f64 = 4.5;

impl Colour {
    /// Opaque black, `#000000`.
    pub const BLACK: Self = Self {
        red: 0,
        green: 0,
        blue: 0,
    };
    /// Opaque white, `#ffffff`.
    pub const WHITE: Self = Self {
        red: 255,
        green: 255,
        blue: 255,
    };

    /// A colour written as `#rrggbb` or `#rgb`, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#')?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let number = u32::from_str_radix(digits, 16).ok()?;
        let [_, red, green, blue] = match digits.len() {
            6 => number.to_be_bytes(),
            3 => ((number >> 8 & 0xf) * 0x11_0000 + (number >> 4 & 0xf) * 0x1100 + (number & 0xf) * 0x11)
                .to_be_bytes(),
            _ => return None,
        };
        Some(Self { red, green, blue })
    }

    /// How bright it is, from 0 to 1 (relative luminance, WCAG 2.x).
    pub fn luminance(self) -> f64 {
        let linear = |part: u8| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 {
                part / 12.92
            } else {
                ((part + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * linear(self.red) + 0.7152 * linear(self.green) + 0.0722 * linear(self.blue)
    }

    /// The contrast ratio with another colour (WCAG 2.x), from 1 to 21.
    pub fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// How it stands out from white and from black.
    pub fn contrasts(self) -> Contrasts {
        // Cut off and not rounded, so that nothing passes that does not.
        let cut = |ratio: f64| (ratio * 100.0).floor() / 100.0;
        Contrasts {
            white: cut(self.contrast(Self::WHITE)),
            black: cut(self.contrast(Self::BLACK)),
        }
    }

    /// Black or white, whichever is read better on it. One of the two always has enough contrast.
    pub fn text(self) -> Self {
        if self.contrast(Self::WHITE) >= self.contrast(Self::BLACK) {
            Self::WHITE
        } else {
            Self::BLACK
        }
    }
}

/// Contrast ratios, cut off after two digits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Contrasts {
    /// The ratio to white, 1 to 21.
    pub white: f64,
    /// The ratio to black, 1 to 21.
    pub black: f64,
}

impl std::fmt::Display for Colour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn contrast_is_that_of_the_published_examples() {
        let ratio = |one: &str, two: &str| {
            let ratio = Colour::parse(one).unwrap().contrast(Colour::parse(two).unwrap());
            (ratio * 100.0).round() / 100.0
        };
        // The pairs by which checkers of contrast are checked: #767676 is the lightest grey that passes on white.
        assert_eq!(ratio("#000", "#fff"), 21.0);
        assert_eq!(ratio("#767676", "#ffffff"), 4.54);
        assert_eq!(ratio("#777777", "#ffffff"), 4.48);
        assert_eq!(ratio("#f00", "#fff"), 4.0);
        assert_eq!(ratio("#00f", "#fff"), 8.59);
        assert_eq!(ratio("#ff0", "#fff"), 1.07);
        assert_eq!(Colour::parse("#777777").unwrap().contrasts().white, 4.47);
    }

    #[test]
    fn what_is_no_hexadecimal_colour_is_none() {
        for text in [
            "",
            "#",
            "#ff",
            "#ffff",
            "#ffffffff",
            "ffffff",
            "#gggggg",
            "#+12345",
            "red",
            "rgb(0,0,0)",
            "#12345 ",
            "#ÄÄÄ",
        ] {
            assert_eq!(Colour::parse(text), None, "{text}");
        }
        assert_eq!(Colour::parse("#AbC").unwrap().to_string(), "#aabbcc");
    }

    proptest! {
        #[test]
        fn every_colour_can_be_read_and_carries_readable_text(number in 0_u32..0x100_0000) {
            let text = format!("#{number:06x}");
            let colour = Colour::parse(&text).unwrap();
            prop_assert_eq!(colour.to_string(), text);
            prop_assert!(colour.contrast(colour.text()) >= ENOUGH_CONTRAST);
            prop_assert!((1.0..=21.0).contains(&colour.contrast(Colour::WHITE)));
        }
    }
}
