// Shows the OpenAPI document, and signs the requests that are tried on this page. The secret is read from the field when a
// request goes out and is kept nowhere else.
"use strict";

// This file lies in the folder docs/ of the service, wherever a proxy shows that.
const root = new URL("../", document.currentScript.src);
const secretField = document.getElementById("secret");
const signed = document.getElementById("signed");

async function signature(secret, body) {
  const text = new TextEncoder();
  const key = await crypto.subtle.importKey("raw", text.encode(secret), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const bytes = new Uint8Array(await crypto.subtle.sign("HMAC", key, text.encode(body)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function sign(request) {
  const path = new URL(request.url, location.href).pathname;
  if (request.method !== "POST" || path !== new URL("webhook", root).pathname || secretField.value === "") {
    return request;
  }
  if (!window.crypto || !crypto.subtle) {
    // Browsers offer cryptography only over HTTPS and on localhost.
    signed.value = "This browser signs only over HTTPS or on localhost; use postroom sign instead.";
    return request;
  }
  request.headers["X-Signature"] = await signature(secretField.value, request.body || "");
  signed.value = "Signed the last request.";
  return request;
}

window.addEventListener("load", () => {
  SwaggerUIBundle({
    url: new URL("openapi.json", root).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    requestInterceptor: sign,
  });
});
