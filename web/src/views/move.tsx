/** What an administrator can do with a module: a button each, and a dialog that asks once more, and for the reason. */
import { useSignal } from "@preact/signals";
import { useEffect, useId, useRef } from "preact/hooks";
import { moveModule, Problem } from "../live/api";
import type { Module } from "../model/migration";
import { ACTION_WORDS, actionsFor, ALL, buttonWords, consequence, KILL_WORDS, spiteOf, stageName, withoutFlags, type MoveAction } from "../model/steps";
import { humanise } from "../model/words";
import * as app from "../state/app";
import { noteMigration } from "../state/migration";

const MAX_WHY = 400;

interface Refusal {
  words: string;
  /** What can be gone on in spite of; empty: nothing. */
  spite: string;
}

function refusalOf(error: unknown, action: MoveAction): Refusal {
  if (!(error instanceof Problem)) return { words: "Something went wrong. Try again.", spite: "" };
  if (error.status === 403) return { words: "Your key may look at this and not change it.", spite: "" };
  return { words: withoutFlags(error.message), spite: spiteOf(action, error.code) };
}

/** What the gate has not passed, as of now; why, is in the refusal. */
const skipped = (module: Module): string =>
  module.figures
    .filter((figure) => figure.outcome !== "pass")
    .map((figure) => figure.name)
    .join(", ");

function Spite({ module, action, label, on, toggle }: { module: Module; action: MoveAction; label: string; on: boolean; toggle: (on: boolean) => void }) {
  const skips = action === "start" || action === "return" ? "" : skipped(module);
  return (
    <label class="spite">
      <input type="checkbox" data-testid="move-force" checked={on} onChange={(event) => toggle(event.currentTarget.checked)} />
      <span>
        <b>{label}.</b> {skips !== "" && <>This skips: {skips}. </>}The audit says that it was forced.
      </span>
    </label>
  );
}

/** Modules are moved for all sites of the server: by administrators of this one. */
const OPERATORS = "main";
export const mayMove = (): boolean => app.session.value?.role === "admin" && app.session.value.site === OPERATORS;

function useMove(name: string, action: MoveAction, close: () => void) {
  const why = useSignal("");
  const force = useSignal(false);
  const busy = useSignal(false);
  const refusal = useSignal<Refusal | null>(null);
  const move = async (): Promise<void> => {
    if (busy.value) return;
    busy.value = true;
    try {
      noteMigration(await moveModule(name, action, { why: why.value.trim(), force: force.value }), Date.now(), true);
      close();
    } catch (error) {
      refusal.value = refusalOf(error, action);
    } finally {
      busy.value = false;
    }
  };
  return { why, force, busy, refusal, move };
}

interface Question {
  name: string;
  action: MoveAction;
  title: string;
  text: string;
  button: string;
  close: () => void;
  /** None: it concerns all of them. */
  module?: Module;
}

function MoveDialog({ name, action, title: words, text, button, close, module }: Question) {
  const box = useRef<HTMLDialogElement>(null);
  const title = useId();
  // Who says yes says it to the module as it was when the dialog was opened.
  const asked = useRef({ text, button, stage: module && stageName(module) });
  const { why, force, busy, refusal, move } = useMove(name, action, close);
  useEffect(() => box.current?.showModal(), []);
  const moved = !busy.value && action !== "rollback" && module !== undefined && asked.current.stage !== stageName(module);
  const spite = refusal.value?.spite ?? "";
  return (
    <dialog ref={box} class="move" aria-labelledby={title} data-testid="move" data-action={action} onClose={close}>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (!moved) void move();
        }}
      >
        <h3 id={title}>{words}</h3>
        <p>{asked.current.text}</p>
        <label class="why">
          Reason, for the audit
          <input type="text" maxLength={MAX_WHY} autocomplete="off" data-testid="move-why" value={why.value} onInput={(event) => (why.value = event.currentTarget.value)} />
        </label>
        {refusal.value !== null && (
          <p class="failed" role="alert" data-testid="move-refused">
            {refusal.value.words}
          </p>
        )}
        {spite !== "" && module && <Spite module={module} action={action} label={spite} on={force.value} toggle={(on) => (force.value = on)} />}
        {moved && (
          <p class="failed" role="alert">
            It was moved meanwhile, and is at {stageName(module)} now. Close this and look again.
          </p>
        )}
        {busy.value && (
          <p class="under-way" role="status">
            Asking the controller …
          </p>
        )}
        <div class="answers">
          <button type="button" onClick={close} data-testid="move-cancel">
            Cancel
          </button>
          <button type="submit" class="primary" aria-disabled={busy.value || moved} data-testid="move-confirm">
            {asked.current.button}
          </button>
        </div>
      </form>
    </dialog>
  );
}

export function Moves({ module }: { module: Module }) {
  const asking = useSignal<MoveAction | null>(null);
  const actions = actionsFor(module);
  return (
    <>
      {actions.length > 0 && (
        <div class="moves" role="group" aria-label={`Move ${module.name}`}>
          {actions.map((action) => (
            <button
              key={action}
              type="button"
              class={action === "step" && module.goal === "service" ? "primary" : action === "rollback" ? "grave" : ""}
              aria-label={`${humanise(module.name)}, ${buttonWords(module, action)}`}
              data-testid={`move-${action}`}
              onClick={() => (asking.value = action)}
            >
              {buttonWords(module, action)}
            </button>
          ))}
        </div>
      )}
      {asking.value !== null && (
        <MoveDialog
          key={asking.value}
          name={module.name}
          action={asking.value}
          title={`${humanise(module.name)}: ${ACTION_WORDS[asking.value]}`}
          text={consequence(module, asking.value)}
          button={buttonWords(module, asking.value)}
          close={() => (asking.value = null)}
          module={module}
        />
      )}
    </>
  );
}

/** Everything that has moved, back at once. */
export function KillSwitch() {
  const asking = useSignal(false);
  return (
    <>
      <button type="button" class="grave" data-testid="kill-switch" onClick={() => (asking.value = true)}>
        {ACTION_WORDS.kill}
      </button>
      {asking.value && (
        <MoveDialog name={ALL} action="kill" title={ACTION_WORDS.kill} text={KILL_WORDS} button={ACTION_WORDS.kill} close={() => (asking.value = false)} />
      )}
    </>
  );
}
