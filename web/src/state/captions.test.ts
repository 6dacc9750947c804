import { beforeEach, describe, expect, it } from "vitest";
import { parseConversation } from "../model/parse";
import { expirePartials, followConversation, forgetCaptions, hearBehind, hearCaption, isTalking, onAir, secondsBehind, tileOf } from "./captions";

const caption = (text: string, start_offset: number, final = false, conversation_id = "c") =>
  hearCaption({ conversation_id, channel: "ops", speaker: 0, start_offset, text, final, utterance_id: null, emergency: false }, 1000);
const conversation = (state: string, more: object = {}) => {
  const made = parseConversation({ conversation_id: "c", channel: "ops", state, ...more });
  if (made) followConversation(made);
};
const shown = (): [string, boolean][] => tileOf("ops")?.value.lines.map((line) => [line.text, line.final]) ?? [];

beforeEach(forgetCaptions);

describe("captions", () => {
  it("settle, and no late partial unsettles them", () => {
    caption("four", 0);
    caption("412 done", 0, true);
    caption("four one", 0);
    expect(shown()).toEqual([["412 done", true]]);
    caption("next", 900);
    expect(shown()).toEqual([["next", false]]);
  });

  it("fade when their conversation breaks off in the middle", () => {
    caption("help", 0);
    const tile = tileOf("ops");
    expect(tile && isTalking(tile.value)).toBe(true);
    expirePartials(60_000);
    expect(shown()).toEqual([]);
  });

  it("tell how far a channel is behind, until it is whole again or no more is told", () => {
    conversation("live");
    const told = (behind_ms: number, id = "c") => hearBehind({ conversation_id: id, channel: "ops", behind_ms }, 1000);
    const behind = (): number | undefined => {
      const tile = tileOf("ops")?.value;
      return tile && secondsBehind(tile);
    };
    expect(behind()).toBe(0);
    told(7200);
    told(4000, "d");
    expect(behind()).toBe(7);
    told(0);
    expect(behind()).toBe(4);
    expirePartials(60_000);
    expect(behind()).toBe(0);
  });

  it("keep a tile for as long as the channel is on the air", () => {
    conversation("live");
    expect(onAir.value).toEqual(["ops"]);
    conversation("interrupted");
    expect(onAir.value).toEqual(["ops"]);
    conversation("ended");
    expect(onAir.value).toEqual([]);
  });

  it("keep the tile of a radio that never came back until another talk begins on its channel", () => {
    conversation("live");
    conversation("expired", { unreachable_since: "2026-05-09T07:35:20.000Z" });
    expect(tileOf("ops")?.value.conversations.map((each) => each.state)).toEqual(["expired"]);
    conversation("live", { conversation_id: "d" });
    expect(tileOf("ops")?.value.conversations.map((each) => each.conversation_id)).toEqual(["d"]);
    conversation("expired", { conversation_id: "d" });
    expect(onAir.value).toEqual([]);
  });
});
