/** Which words of an utterance support which value: the text cut into pieces, to be shown as text nodes. */
import type { Evidence, Word } from "./protocol";

export type EvidenceKind = "rooms" | "items" | "urgency";

export interface Piece {
  text: string;
  kind: EvidenceKind | null;
  /** Speech-to-text was not sure about a word in here. */
  unsure: boolean;
}

const UNSURE_BELOW = 0.5;
const WORD_CHARACTER = /[\p{L}\p{N}]/u;

/** The place of a quotation in the text; standing alone as words if it does so anywhere ("12" is not in "412"). */
function place(text: string, quotation: string): number {
  let anywhere = -1;
  for (let at = text.indexOf(quotation); at >= 0; at = text.indexOf(quotation, at + 1)) {
    if (anywhere < 0) anywhere = at;
    const before = text.charAt(at - 1);
    const after = text.charAt(at + quotation.length);
    if (!WORD_CHARACTER.test(before) && !WORD_CHARACTER.test(after)) return at;
  }
  return anywhere;
}

export function pieces(text: string, evidence: readonly Evidence[], words: readonly Word[]): Piece[] {
  const kinds = Array.from<EvidenceKind | null>({ length: text.length }).fill(null);
  const unsure = Array.from<boolean>({ length: text.length }).fill(false);
  // Later ones win: an urgent word matters more than the thing that it names.
  for (const kind of ["items", "rooms", "urgency"] as const) {
    for (const quotation of evidence.flatMap((each) => each[kind])) {
      const at = quotation === "" ? -1 : place(text, quotation);
      if (at >= 0) kinds.fill(kind, at, at + quotation.length);
    }
  }
  let from = 0;
  for (const word of words) {
    const plain = word.text.trim();
    const at = plain === "" ? -1 : text.indexOf(plain, from);
    if (at < 0) continue;
    from = at + plain.length;
    if (word.confidence < UNSURE_BELOW) unsure.fill(true, at, from);
  }
  const found: Piece[] = [];
  for (let at = 0; at < text.length; at++) {
    const kind = kinds[at] ?? null;
    const doubtful = unsure[at] ?? false;
    const last = found.at(-1);
    if (last && last.kind === kind && last.unsure === doubtful) last.text += text.charAt(at);
    else found.push({ text: text.charAt(at), kind, unsure: doubtful });
  }
  return found;
}
