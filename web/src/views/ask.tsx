/** A dialog that asks once more before something is done, and says if it was refused. */
import type { ComponentChildren } from "preact";
import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { Problem } from "../live/api";

interface Question {
  title: string;
  /** Of the button that does it. */
  button: string;
  /** While it is asked for. */
  busyWords: string;
  /** Why it can't be done any more; empty where it can. */
  stale?: string;
  close: () => void;
  /** Does it; what it throws is shown. */
  send: () => Promise<void>;
  children: ComponentChildren;
  testId: string;
}

export function problemWords(error: unknown): string {
  if (!(error instanceof Problem)) return "Something went wrong. Try again.";
  return error.status === 403 ? "Your key may look at this and not change it." : error.message;
}

export function AskDialog({ title: words, button, busyWords, stale = "", close, send, children, testId }: Question) {
  const box = useRef<HTMLDialogElement>(null);
  const title = useId();
  const busy = useSignal(false);
  const refused = useSignal("");
  useEffect(() => box.current?.showModal(), []);
  const go = async (): Promise<void> => {
    if (busy.value || stale !== "") return;
    busy.value = true;
    refused.value = "";
    try {
      await send();
    } catch (error) {
      refused.value = problemWords(error);
    } finally {
      busy.value = false;
    }
  };
  return (
    <dialog ref={box} class="move" aria-labelledby={title} data-testid={testId} onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          void go();
        }}
      >
        <h3 id={title}>{words}</h3>
        {children}
        {refused.value !== "" && (
          <p class="failed" role="alert" data-testid={`${testId}-refused`}>
            {refused.value}
          </p>
        )}
        {stale !== "" && (
          <p class="failed" role="alert">
            {stale}
          </p>
        )}
        {busy.value && (
          <p class="under-way" role="status">
            {busyWords}
          </p>
        )}
        <div class="answers">
          <button type="button" onClick={close} data-testid={`${testId}-cancel`}>
            Cancel
          </button>
          <button type="submit" class="primary" aria-disabled={busy.value || stale !== ""} data-testid={`${testId}-confirm`}>
            {button}
          </button>
        </div>
      </form>
    </dialog>
  );
}
