import { describe, expect, it } from "vitest";
import { boardLink, conversationLink, operationLink, OPERATIONS_LINK, parseRoute } from "./route";

describe("addresses", () => {
  it("come back as they were written", () => {
    const link = boardLink({ department: "front_desk", channel: "A & B #1", status: "open" }, "50 % off?", "8");
    expect(parseRoute(link)).toMatchObject({
      view: "board",
      query: "50 % off?",
      since: "8",
      filters: { department: "front_desk", channel: "A & B #1", status: "open" },
    });
    expect(parseRoute("#/prompts").view).toBe("prompts");
    expect(parseRoute("#/migration").view).toBe("migration");
    expect(parseRoute(OPERATIONS_LINK).view).toBe("operations");
    expect(parseRoute(operationLink("a/b"))).toMatchObject({ view: "operation", id: "a/b" });
    expect(parseRoute("#/shift?since=24")).toMatchObject({ view: "shift", since: "24" });
    expect(parseRoute("#/model").view).toBe("model");
    expect(parseRoute(conversationLink("a~b/c?d"))).toMatchObject({ view: "conversation", id: "a~b/c?d" });
  });

  it("that make no sense lead to the board", () => {
    for (const hash of ["", "#", "#/nowhere", "#/?status=lost&since=9", "#/conversation/%E0%A4%A"]) {
      expect(() => parseRoute(hash)).not.toThrow();
    }
    expect(parseRoute("#/?status=lost").filters.status).toBe("all");
  });
});
