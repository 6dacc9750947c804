/** Without a session: paste a key. */
import { useSignal } from "@preact/signals";
import { signIn } from "../live/client";
import * as app from "../state/app";

export function SignIn() {
  const key = useSignal("");
  const busy = useSignal(false);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (key.value.trim() === "" || busy.value) return;
    busy.value = true;
    await signIn(key.value);
    busy.value = false;
  };
  const error = app.signInError.value;
  return (
    <main class="signin" data-testid="sign-in">
      <form onSubmit={(event) => void submit(event)}>
        <p class="brand">
          <img src="./favicon.svg" alt="" width="40" height="40" />
          <span>QuickComm</span>
        </p>
        <label for="key">Access key</label>
        <input
          id="key"
          type="password"
          autocomplete="current-password"
          spellcheck={false}
          autofocus
          data-testid="sign-in-key"
          aria-invalid={error !== null}
          aria-describedby="key-help key-error"
          value={key.value}
          onInput={(event) => (key.value = event.currentTarget.value)}
        />
        <p id="key-error" class="failed" role="alert" data-testid="sign-in-error">
          {error}
        </p>
        <button type="submit" class="primary" disabled={busy.value || key.value.trim() === ""} data-testid="sign-in-submit">
          {busy.value ? "Signing in …" : "Sign in"}
        </button>
        <p id="key-help" class="hint">
          The first start of the server prints a link that signs you in. Another key: <code>quickcomm keys create --role read</code>
        </p>
      </form>
    </main>
  );
}
