//! Label values of metrics: closed sets, so that clients cannot change the size of an exposition.

/// Labels of a closed set: an enum, its values, and their names in the exposition.
macro_rules! labels {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),+ }

        impl $name {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the exposition and in log lines.
            pub fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

labels! {
    /// The result of a request to the original source.
    WebhookResult {
        /// Stored.
        Created = "created",
        /// Stored before.
        Duplicate = "duplicate",
        /// No valid signature.
        InvalidSignature = "invalid_signature",
        /// Signed, but not a message.
        ValidationError = "validation_error",
    }
}

labels! {
    /// Why a request was refused, other than for its content.
    Refusal {
        /// 400: not valid HTTP.
        MalformedRequest = "malformed_request",
        /// 431
        HeadersTooLarge = "headers_too_large",
        /// Closed without a response: the head did not arrive in time.
        HeadersTooSlow = "headers_too_slow",
        /// 408
        BodyTooSlow = "body_too_slow",
        /// 413
        BodyTooLarge = "body_too_large",
        /// 503, or closed before there was a request: it made no progress while another connection waited for its
        /// place.
        ConnectionGaveWay = "connection_gave_way",
        /// 503: all bodies in progress together are too large.
        BodiesTooLarge = "bodies_too_large",
        /// 415
        ContentEncoding = "content_encoding",
        /// 401: no signature header.
        MissingHeader = "missing_header",
        /// 401: more than one signature header.
        DuplicateHeader = "duplicate_header",
        /// 401: not in the form of a signature.
        MalformedSignature = "malformed_signature",
        /// 401: a signature with another secret, or for other bytes.
        WrongSecret = "wrong_secret",
        /// 401: a signed time in an invalid form.
        MalformedTimestamp = "malformed_timestamp",
        /// 401: signed too long ago.
        StaleTimestamp = "stale_timestamp",
        /// 401: the signed time is too far ahead.
        FutureTimestamp = "future_timestamp",
        /// 401: signed with an algorithm that the source does not accept.
        WrongAlgorithm = "wrong_algorithm",
        /// 401: the signed digest belongs to another body or URL.
        BodyMismatch = "body_mismatch",
        /// 401: the URL of the request is not known.
        UnknownUrl = "unknown_url",
        /// 403: a handshake with another verify token, or without one.
        WrongVerifyToken = "wrong_verify_token",
        /// 403: a handshake with an invalid mode or challenge.
        MalformedHandshake = "malformed_handshake",
        /// 401: reading needs a token.
        NotAuthenticated = "not_authenticated",
        /// 403: the scope of the token is too small, or no token has the scope.
        NotPermitted = "not_permitted",
        /// 429: over the operator's rate limit.
        TooMany = "too_many",
        /// 503: the queue of the writer or of the readers is full.
        QueueFull = "queue_full",
        /// 503: the service is stopping.
        ShuttingDown = "shutting_down",
        /// 503: the database failed.
        DatabaseUnavailable = "database_unavailable",
        /// 503: stored data differ from what was stored.
        DataDamaged = "data_damaged",
        /// 503: a read took too long.
        QueryDeadline = "query_deadline",
        /// 503: a request took too long.
        RequestDeadline = "request_deadline",
        /// No response: the client disconnected before it, or the grace period of a stop ended.
        Unanswered = "unanswered",
        /// 507
        DiskFull = "disk_full",
        /// 500
        Panic = "panic",
    }
}
