/** A federation of four clients on synthetic data that takes a fraction of a second. */
export const tinyScenario = `
scenario: tiny
task:
  task: tiny
  data: { numClasses: 3, exampleShape: [8] }
  transferSet: { source: synthetic, size: 60, seed: 7 }
  evaluationSet: { source: synthetic, size: 60, seed: 8 }
  teacher: { kind: learner, model: softmax-regression, epochs: 2 }
  student: { model: softmax-regression, pretrainEpochs: 1, digestEpochs: 1, revisitEpochs: 1 }
  schedule: { rounds: 2, minClients: 4, quorum: 3 }
clients:
  groups: [{ count: 4, model: softmax-regression }]
  data: { source: synthetic, size: 160, seed: 9 }
  testSet: { source: synthetic, size: 60, seed: 10 }
`;
