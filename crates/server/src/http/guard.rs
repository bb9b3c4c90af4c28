//! Access control: the token that an endpoint requires, and the rate limit of an address.

use std::net::IpAddr;

use hyper::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use super::AppState;
use super::error::ApiError;
use super::route::Access;
use crate::config::{Scope, Tokens};

/// The header for a token if a proxy uses `Authorization` itself. This header has priority.
pub const TOKEN_HEADER: &str = "x-postroom-token";

/// Lets a request pass, or returns the reason of the refusal.
pub fn admit(app: &AppState, access: Access, headers: &HeaderMap, peer: IpAddr) -> Result<(), ApiError> {
    let scope = match access {
        Access::Signed | Access::Open => return Ok(()),
        Access::TokenUnlessPublic if app.access().metrics_public => return Ok(()),
        Access::TokenUnlessPublic => Scope::Read,
        Access::Token(scope) => scope,
    };
    app.rates.read(peer).map_err(ApiError::TooMany)?;
    authorize(&app.access().tokens, scope, headers)
}

/// Reading needs a token if there are tokens for reading. A change always needs a token.
fn authorize(tokens: &Tokens, needed: Scope, headers: &HeaderMap) -> Result<(), ApiError> {
    if needed == Scope::Read && tokens.leave_reading_open() {
        return Ok(());
    }
    let given = token(headers);
    let scope = given.and_then(|given| tokens.scope_of(given));
    if scope.is_some_and(|scope| scope >= needed) {
        return Ok(());
    }
    match (tokens.has(needed), scope) {
        (true, None) => Err(ApiError::NotAuthenticated { token_given: given.is_some() }),
        (is_configured, _) => Err(ApiError::NotPermitted { needed, is_configured }),
    }
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let own = headers.get(TOKEN_HEADER).map(HeaderValue::as_bytes).filter(|token| !token.is_empty());
    own.or_else(|| match headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)? {
        (scheme, token) if scheme.eq_ignore_ascii_case(b"Bearer ") => Some(token.trim_ascii()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::route::{Cache, Cors, Cost, Handler, Listener, Path, Route};
    use super::super::{Answer, route};
    use super::*;

    /// An endpoint that acts. There is none yet.
    const fn acting(scope: Scope) -> Route {
        Route {
            path: Path::new("/test"),
            method: Method::POST,
            access: Access::Token(scope),
            listener: Listener::Read,
            cors: Cors::Never,
            cost: Cost::Cheap,
            cache: Cache::NoStore,
            label: "/test",
            handler: Handler::Now(|_: route::Call<'_>| Ok(Answer::default())),
            operation: None,
        }
    }

    const READ: &str = "Bearer reader";
    const OPERATE: &str = "Bearer operator";
    const ADMIN: &str = "Bearer admin";

    /// The status for a row with these tokens in the settings and this `Authorization`; 200 if it is admitted.
    fn status(scope: Scope, known: &[(Scope, &str)], given: Option<&str>) -> u16 {
        let Access::Token(needed) = acting(scope).access else { unreachable!("the row asks for a token") };
        let mut headers = HeaderMap::new();
        given.into_iter().for_each(|given| drop(headers.insert(AUTHORIZATION, given.parse().unwrap())));
        match authorize(&Tokens::of(known), needed, &headers) {
            Ok(()) => 200,
            Err(error) => error.status().as_u16(),
        }
    }

    const ALL: &[(Scope, &str)] = &[(Scope::Read, "reader"), (Scope::Operate, "operator"), (Scope::Admin, "admin")];

    #[test]
    fn a_higher_scope_includes_the_lower_ones() {
        for (scope, statuses) in
            [(Scope::Read, [200, 200, 200]), (Scope::Operate, [403, 200, 200]), (Scope::Admin, [403, 403, 200])]
        {
            let given = [READ, OPERATE, ADMIN].map(|token| status(scope, ALL, Some(token)));
            assert_eq!(given, statuses, "{scope:?}");
            for wrong in [None, Some("Bearer nobody"), Some("Basic operator"), Some("Bearer"), Some("operator")] {
                assert_eq!(status(scope, ALL, wrong), 401, "{scope:?} {wrong:?}");
            }
        }
    }

    #[test]
    fn only_tokens_for_reading_close_reading() {
        let without = &ALL[1..];
        for given in [None, Some("Bearer nobody"), Some(OPERATE)] {
            assert_eq!(status(Scope::Read, without, given), 200, "{given:?}");
        }
        assert_eq!((status(Scope::Operate, without, None), status(Scope::Operate, without, Some(OPERATE))), (401, 200));
    }

    #[test]
    fn nobody_acts_where_no_token_for_it_is_configured() {
        for known in [&[][..], &ALL[..1]] {
            for given in [None, Some("Bearer nobody"), Some(READ)] {
                assert_eq!(status(Scope::Operate, known, given), 403, "{given:?}");
            }
        }
        assert_eq!((status(Scope::Admin, &ALL[..2], None), status(Scope::Admin, &ALL[..2], Some(OPERATE))), (403, 403));
        assert_eq!(status(Scope::Operate, &ALL[2..], None), 401, "an administrator operates too");
    }

    #[test]
    fn a_refusal_names_the_setting_and_the_scope() {
        let sufficient = "it needs a token of POSTROOM_API_OPERATOR_TOKEN or POSTROOM_API_ADMIN_TOKEN";
        for (is_configured, detail) in [
            (true, format!("the token may not do this: {sufficient}")),
            (false, "nobody may do this: POSTROOM_API_OPERATOR_TOKEN is not set".to_owned()),
        ] {
            let error = ApiError::NotPermitted { needed: Scope::Operate, is_configured };
            assert_eq!(error.detail(), detail);
            let scheme = "Bearer error=\"insufficient_scope\", scope=\"operate\"";
            assert_eq!(error.answer().headers()["www-authenticate"], scheme);
        }
    }

    #[test]
    fn both_headers_are_taken_and_our_own_goes_first() {
        let with = |own: Option<&str>, authorization: Option<&str>| {
            let mut headers = HeaderMap::new();
            own.into_iter().for_each(|own| drop(headers.insert(TOKEN_HEADER, own.parse().unwrap())));
            authorization.into_iter().for_each(|given| drop(headers.insert(AUTHORIZATION, given.parse().unwrap())));
            token(&headers).map(|token| String::from_utf8_lossy(token).into_owned())
        };
        assert_eq!(with(Some("a"), None).as_deref(), Some("a"));
        assert_eq!(with(Some("a"), Some("Basic eA==")).as_deref(), Some("a"), "a proxy asks for a password");
        assert_eq!(with(Some("a"), Some("Bearer b")).as_deref(), Some("a"));
        assert_eq!(with(None, Some("bearer  b ")).as_deref(), Some("b"));
        assert_eq!((with(None, Some("Basic b")), with(None, None), with(Some(""), None)), (None, None, None));
    }
}
